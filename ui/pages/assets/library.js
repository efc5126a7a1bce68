// The table of videos. data: {columns, sort, descending, rows, label}; a column: {key, label}; a row: {id, href, name,
// folder, length, state, note, added, thumbnail, actions}. Results: triggers "sort" (the key of a column), "open",
// "forget" and "retry" (the id of a row). Names and reasons come from files: they are set as text, never as HTML.

function heading(column, data, send) {
  const cell = element("th", column.key);
  cell.scope = "col";
  const isSorted = data.sort === column.key;
  cell.ariaSort = isSorted ? (data.descending ? "descending" : "ascending") : "none";
  const button = element("button", "sort", column.label);
  button.type = "button";
  const arrow = element("span", "arrow", isSorted ? (data.descending ? "▾" : "▴") : "");
  arrow.ariaHidden = "true";
  button.append(arrow);
  button.onclick = () => send("sort", column.key);
  cell.append(button);
  return cell;
}

function thumbnailOf(row) {
  const cell = element("td", "thumbnail");
  cell.append(thumbnail(row.thumbnail, ""));
  return cell;
}

function nameOf(row, send) {
  const cell = element("th", "name");
  cell.scope = "row";
  const name = row.href
    ? linkTo(row.href, row.name, () => send("open", row.id))
    : element("span", "closed", row.name);
  if (row.href) name.title = row.name;
  cell.append(name);
  if (row.note) cell.append(element("span", "note", row.note));
  return cell;
}

function rowOf(row, send) {
  const made = element("tr");
  const state = element("td", "state");
  state.append(element("span", `word ${row.state}`, row.state));
  const folder = element("td", "folder", row.folder);
  folder.title = row.folder;
  const actions = element("td", "actions");
  for (const action of row.actions) {
    const button = element("button", "action", action === "retry" ? "Retry" : "Forget");
    button.type = "button";
    button.setAttribute("aria-label", `${button.textContent} ${row.name}`);
    button.onclick = () => send(action, row.id);
    actions.append(button);
  }
  made.append(
    thumbnailOf(row),
    nameOf(row, send),
    folder,
    element("td", "length", row.length),
    state,
    element("td", "added", row.added),
    actions,
  );
  return made;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const table = parentElement.querySelector("table");
  const shown = JSON.stringify(data);
  if (table.shown === shown) return; // an unchanged table keeps the focus
  table.shown = shown;
  const focused = parentElement.activeElement?.closest?.("th")?.className;
  const send = (name, value) => setTriggerValue(name, value);
  table.querySelector("caption").textContent = data.label;
  const row = element("tr");
  row.append(element("td", "thumbnail"));
  row.append(...data.columns.map((column) => heading(column, data, send)));
  row.append(element("td", "actions"));
  table.tHead.replaceChildren(row);
  table.tBodies[0].replaceChildren(...data.rows.map((each) => rowOf(each, send)));
  if (focused) row.querySelector(`th.${focused} button`)?.focus();
}
