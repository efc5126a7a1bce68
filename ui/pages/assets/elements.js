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

// What a person does, as a numbered list that is sent whole until Python has taken it over: quick clicks are not lost
// while a page runs, and nothing is done twice. Python takes them over by `acts.fresh_acts`.
class Acts {
  constructor() {
    this.open = [];
    this.last = 0;
  }

  // `seen`: number of the last act that Python has taken over
  acknowledge(seen) {
    this.open = this.open.filter(([number]) => number > seen);
    this.last = Math.max(this.last, seen);
    return this.open.length === 0;
  }

  add(act, setStateValue) {
    this.last += 1;
    this.open.push([this.last, act]);
    setStateValue("acts", [...this.open]);
  }
}
