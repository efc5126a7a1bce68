// What all components use; Python puts this text in front of the script of each.

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

// A link that opens in place by calling `open`. Its address serves for new tabs, windows and downloads, which a click
// with a modifier key asks for: the browser handles those.
const linkTo = (href, text, open) => {
  const link = element("a", "open", text);
  link.href = href;
  link.onclick = (event) => {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    open();
  };
  return link;
};

// A thumbnail that is hidden while there is none.
const thumbnail = (src, alt) => {
  const image = element("img");
  image.loading = "lazy";
  image.decoding = "async";
  image.alt = alt;
  image.onerror = () => image.classList.add("missing");
  if (src) image.src = src;
  else image.classList.add("missing");
  return image;
};
