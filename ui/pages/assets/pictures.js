// A row of pictures with links. data: {items, label}; an item: {key, href, src, title, note}. Result: trigger "open"
// (the key of an item). Titles come from files and people: they are set as text and attributes, never as HTML.

function makePicture(item, open) {
  const made = element("li", "picture");
  const link = linkTo(item.href, "", () => open(item.key));
  link.title = item.title;
  link.append(thumbnail(item.src, ""), element("span", "title", item.title), element("span", "note", item.note));
  made.append(link);
  return made;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const list = parentElement.querySelector(".pictures");
  const made = JSON.stringify(data);
  if (parentElement.made === made) return; // unchanged pictures keep the focus
  parentElement.made = made;
  list.setAttribute("aria-label", data.label);
  list.replaceChildren(...data.items.map((item) => makePicture(item, (key) => setTriggerValue("open", key))));
}
