// The tray of selects. data: {selects: [{key, name, note, query, in, out, length, src, href}], seen}. Result: state
// "acts", see `Acts`: {kind: "move" (value: position), "rename" or "note" (value: text), "remove", "clear", key}.
// Names and notes come from files and people: they are set as text and values, never as HTML.

function field(row, kind, value, label, tray) {
  const input = element("input", kind);
  input.value = value;
  input.maxLength = 500;
  input.setAttribute("aria-label", `${label} of ${row.name}, ${row.in}`);
  input.placeholder = label;
  input.onchange = () => tray.act({ kind, key: row.key, value: input.value });
  return input;
}

function button(text, label, press, isDisabled = false) {
  const made = element("button", "", text);
  made.type = "button";
  made.title = label;
  made.setAttribute("aria-label", label);
  made.disabled = isDisabled;
  made.onclick = press;
  return made;
}

function makeRow(row, position, count, tray) {
  const item = element("li", "row");
  const number = element("span", "number", String(position + 1));
  number.draggable = true;
  number.title = "drag to move";
  number.ondragstart = (event) => event.dataTransfer.setData("text/x-select", row.key);
  item.ondragover = (event) => {
    if (!event.dataTransfer.types.includes("text/x-select")) return;
    event.preventDefault();
    item.classList.add("over");
  };
  item.ondragleave = () => item.classList.remove("over");
  item.ondrop = (event) => {
    event.preventDefault();
    item.classList.remove("over");
    tray.act({ kind: "move", key: event.dataTransfer.getData("text/x-select"), value: position });
  };
  const picture = element(row.href ? "a" : "span");
  if (row.href) {
    picture.href = row.href;
    picture.setAttribute("aria-label", `open ${row.name}, ${row.in}`);
  }
  picture.append(thumbnail(row.src, ""));
  const times = element("span", "times", `${row.in} \u2013 ${row.out}`);
  times.title = row.length;
  const moves = element("span", "moves");
  const what = `${row.name}, ${row.in}`;
  moves.append(
    button("\u2191", `move up ${what}`, () => tray.act({ kind: "move", key: row.key, value: position - 1 }), position === 0),
    button("\u2193", `move down ${what}`, () => tray.act({ kind: "move", key: row.key, value: position + 1 }), position === count - 1),
    button("\u00d7", `remove ${what}`, () => tray.act({ kind: "remove", key: row.key })),
  );
  item.append(number, picture, field(row, "rename", row.name, "name", tray), times, field(row, "note", row.note, row.query ? `note (${row.query})` : "note", tray), moves);
  return item;
}

export default function ({ data, parentElement, setStateValue }) {
  const tray = (parentElement.tray ??= { acts: new Acts() });
  tray.act = (act) => tray.acts.add(act, setStateValue);
  tray.acts.acknowledge(data.seen);
  parentElement.querySelector(".clear").onclick = () => tray.act({ kind: "clear" });
  const made = JSON.stringify(data.selects);
  if (tray.made === made) return; // what is being typed stays
  tray.made = made;
  const { selects } = data;
  parentElement.querySelector(".count").textContent = selects.length === 1 ? "1 select" : `${selects.length} selects`;
  parentElement.querySelector(".few").replaceChildren(...selects.slice(0, 12).map(({ src }) => thumbnail(src, "")));
  const list = parentElement.querySelector(".rows");
  const label = parentElement.activeElement?.getAttribute?.("aria-label");
  list.replaceChildren(...selects.map((row, position) => makeRow(row, position, selects.length, tray)));
  if (label) [...list.querySelectorAll("[aria-label]")].find((each) => each.getAttribute("aria-label") === label)?.focus();
}
