// Pictures with links. data: {items, label, current}; an item: {key, href, src, title, note}; current: the key of the
// item that is open, or null: then they are no list of results, and have no keys. Result: trigger "open" (the key of an
// item). Titles come from files and people: they are set as text and attributes, never as HTML.

function makePicture(item, open, isCurrent) {
  const made = element("li", "picture");
  const link = linkTo(item.href, "", () => open(item.key));
  link.title = item.title;
  if (isCurrent) link.setAttribute("aria-current", "true");
  link.append(thumbnail(item.src, ""), element("span", "title", item.title), element("span", "note", item.note));
  made.append(link);
  return made;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const list = parentElement.querySelector(".pictures");
  const open = (key) => setTriggerValue("open", key);
  const made = JSON.stringify(data);
  if (parentElement.made !== made) {
    // unchanged pictures keep the focus
    parentElement.made = made;
    list.setAttribute("aria-label", data.label);
    list.classList.toggle("results", data.current !== null);
    list.replaceChildren(...data.items.map((item) => makePicture(item, open, item.key === data.current)));
    const current = list.querySelector("[aria-current]")?.parentElement;
    if (current) {
      list.scrollTop = current.offsetTop - list.offsetTop - 40;
      list.scrollLeft = current.offsetLeft - list.offsetLeft - 40;
    }
  }
  if (data.current === null) return undefined;
  const life = new AbortController();
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.composedPath()[0];
    if (/^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName ?? "") || target.isContentEditable) return;
    const step = { n: 1, N: -1 }[event.key];
    if (!step) return;
    const now = data.items.findIndex(({ key }) => key === data.current);
    const next = data.items[now < 0 ? 0 : now + step];
    if (next) open(next.key);
    event.preventDefault();
  };
  document.addEventListener("keydown", onKey, { signal: life.signal });
  return () => life.abort();
}
