// A grid of moments. data: {cards, picks, version, label}; a card: {key, href, name, path, span, strength, word, dim, pictures}.
// Out: trigger "open" (the key of a card), state "picks" ({version, keys}: everything that is picked, on all pages).
// Names and times come from files: they are set as text and attributes, never as HTML.

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

function makeCard(card, grid) {
  const item = element("li", card.dim ? "card dim" : "card");

  const strip = element("div", "strip");
  for (const picture of card.pictures) {
    const image = element("img");
    image.loading = "lazy";
    image.decoding = "async";
    image.alt = picture.alt;
    image.onerror = () => image.classList.add("missing");
    image.src = picture.src;
    strip.append(image);
  }

  const facts = element("div", "facts");
  const open = element("a", "open", card.name);
  open.href = card.href;
  open.title = card.path;
  open.setAttribute("aria-label", `${card.name}, ${card.span}, ${card.word}`);
  open.onclick = (event) => {
    // another tab or window, or a download: the browser's own business
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    grid.open(card.key);
  };
  facts.append(open, element("div", "span", card.span));

  const line = element("div", "line");
  const pick = element("label", "pick");
  const box = element("input");
  box.type = "checkbox";
  box.setAttribute("aria-label", `pick ${card.name}, ${card.span}`);
  box.onchange = () => grid.pick(card.key, box.checked);
  pick.append(box, element("span", "", "pick"));
  line.append(element("span", `strength ${card.word}`, `${card.word} ${card.strength}`), pick);

  item.append(strip, facts, line);
  return { item, box, made: JSON.stringify(card) };
}

export default function ({ data, parentElement, setTriggerValue, setStateValue }) {
  const grid = (parentElement.grid ??= { cards: new Map(), picks: new Set(), version: -1 });
  grid.open = (key) => setTriggerValue("open", key);
  grid.show = () => {
    for (const [key, { item, box }] of grid.cards) {
      box.checked = grid.picks.has(key);
      item.classList.toggle("picked", box.checked);
    }
  };
  grid.pick = (key, picked) => {
    if (picked) grid.picks.add(key);
    else grid.picks.delete(key);
    grid.version += 1;
    grid.show();
    setStateValue("picks", { version: grid.version, keys: [...grid.picks] });
  };

  // an answer to an earlier click must not undo a later one
  if (data.version >= grid.version) {
    grid.version = data.version;
    grid.picks = new Set(data.picks);
  }
  const cards = new Map();
  for (const card of data.cards) {
    const old = grid.cards.get(card.key);
    cards.set(card.key, old && old.made === JSON.stringify(card) ? old : makeCard(card, grid));
  }
  grid.cards = cards;
  const list = parentElement.querySelector(".grid");
  list.setAttribute("aria-label", data.label);
  const items = [...cards.values()].map(({ item }) => item);
  const turned = list.children.length > 0 && items[0] !== list.firstElementChild;
  // cards that stay where they are keep the focus
  if (items.length !== list.children.length || items.some((item, k) => item !== list.children[k])) {
    list.replaceChildren(...items);
  }
  // another page of results begins at its top, also for who turned it from below
  if (turned && list.getBoundingClientRect().top < 0) list.scrollIntoView({ block: "start" });
  grid.show();
}
