// The lines of a video beside its player.
//
// data: {video, version, tracks: [{name, label, lines: [[start, end, text]], downloads: [{label, href}]}]}
//   version   differs if the lines do
// It follows the player by the event "scanonce-time" of the document, and moves it by "scanonce-jump".
// The texts come from files: they are set as text, never as HTML.

const SEARCH_MS = 120;
const SAID_MS = 2500;

// Letters as they are compared: lower case without accents. Each stays one unit long, so that places stay the same.
function folded(text) {
  const lower = text.toLowerCase();
  if (/^[\x00-\x7f]*$/.test(text)) return lower;
  return (lower.length === text.length ? lower : text).replace(/[^\x00-\x7f]/g, (letter) => {
    const bare = letter.normalize("NFD").replace(/\p{M}/gu, "");
    return bare.length === letter.length ? bare : letter;
  });
}

const clockOf = (seconds) => {
  const whole = Math.floor(seconds + 1e-6);
  const two = (number) => String(number).padStart(2, "0");
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
};

class Transcript {
  constructor(root) {
    this.root = root;
    const find = (name) => root.querySelector(`.${name}`);
    this.parts = Object.fromEntries(
      ["tracks", "words", "lines", "count", "follow", "copy", "downloads"].map((name) => [name, find(name)]),
    );
    this.now = 0;
    this.current = [];
    this.timers = {};
    this.life = new AbortController();
    this.listen();
  }

  // ------------------------------------------------ data from Python

  update({ data }) {
    if (this.data?.video === data.video && this.data.version === data.version) return;
    this.data = data;
    const kept = data.tracks.find((each) => each.name === this.track?.name);
    this.show(kept ?? data.tracks[0]);
    document.dispatchEvent(new CustomEvent("scanonce-where"));
  }

  show(track) {
    this.track = track;
    const { tracks, downloads, lines } = this.parts;
    tracks.hidden = this.data.tracks.length < 2;
    tracks.replaceChildren(
      ...this.data.tracks.map((each) => {
        const button = element("button", "", each.label);
        button.type = "button";
        button.setAttribute("aria-pressed", String(each === track));
        button.onclick = () => {
          this.show(each);
          tracks.querySelector('[aria-pressed="true"]').focus();
        };
        return button;
      }),
    );
    downloads.replaceChildren(
      ...track.downloads.map(({ label, href }) => {
        const link = element("a", "", label);
        link.href = href;
        link.download = "";
        link.setAttribute("aria-label", `download as ${label}`);
        return link;
      }),
    );
    this.rows = track.lines.map(([start, end, text], number) => {
      const item = element("li");
      const button = element("button");
      button.type = "button";
      button.tabIndex = -1;
      button.dataset.number = number;
      const words = element("span", "text", text);
      button.append(element("span", "at", clockOf(start)), words);
      item.append(button);
      return { start, end, text, item, button, words, folded: null, marked: false };
    });
    let latest = 0; // the latest end of this line and all before it: from there on none of them is current
    this.latest = this.rows.map(({ end }) => (latest = Math.max(latest, end)));
    this.current = [];
    lines.replaceChildren(...this.rows.map(({ item }) => item));
    lines.scrollTop = 0;
    this.filter();
    this.at(this.now);
  }

  // ------------------------------------------------ search

  filter() {
    const asked = folded(this.parts.words.value.trim());
    this.shown = [];
    for (const row of this.rows) {
      if (asked) row.folded ??= folded(row.text);
      const place = asked ? row.folded.indexOf(asked) : 0;
      row.item.hidden = place < 0;
      if (place >= 0) this.shown.push(row);
      if (asked && place >= 0) this.mark(row, asked);
      else if (row.marked) [row.words.textContent, row.marked] = [row.text, false];
    }
    this.tell();
    this.focusable(this.shown.includes(this.reached) ? this.reached : this.shown[0]);
  }

  mark(row, asked) {
    const pieces = [];
    let at = 0;
    for (let place = row.folded.indexOf(asked); place >= 0; place = row.folded.indexOf(asked, at)) {
      pieces.push(row.text.slice(at, place), element("mark", "", row.text.slice(place, place + asked.length)));
      at = place + asked.length;
    }
    row.words.replaceChildren(...pieces, row.text.slice(at));
    row.marked = true;
  }

  tell(text) {
    const all = this.rows.length.toLocaleString("en");
    const count = this.parts.words.value.trim() ? `${this.shown.length.toLocaleString("en")} of ${all}` : all;
    this.parts.count.textContent = text ?? `${count} ${this.rows.length === 1 ? "line" : "lines"}`;
    clearTimeout(this.timers.tell);
    if (text) this.timers.tell = setTimeout(() => this.tell(), SAID_MS);
  }

  // ------------------------------------------------ the player

  at(seconds) {
    this.now = seconds;
    const time = seconds + 0.01; // a player stops a little before the time it was sent to
    let [low, high] = [0, this.rows.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle].start <= time) low = middle + 1;
      else high = middle;
    }
    const current = [];
    for (let k = low - 1; k >= 0 && this.latest[k] > seconds; k -= 1) {
      if (this.rows[k].end > seconds) current.unshift(this.rows[k]);
    }
    if (current.length === this.current.length && current.every((row, k) => row === this.current[k])) return;
    for (const { button } of this.current) button.removeAttribute("aria-current");
    for (const { button } of current) button.setAttribute("aria-current", "true");
    this.current = current;
    const row = current.find(({ item }) => !item.hidden);
    if (row) this.reach(row);
  }

  // Bring a line into view, unless a person is busy with the list; the page itself does not move.
  reach(row) {
    const { lines, follow } = this.parts;
    const isBusy = lines.matches(":hover") || lines.contains(this.root.activeElement);
    if (!follow.checked || isBusy) return;
    this.focusable(row);
    const [top, bottom] = [row.item.offsetTop, row.item.offsetTop + row.item.offsetHeight];
    if (top < lines.scrollTop || bottom > lines.scrollTop + lines.clientHeight) {
      lines.scrollTop = top - lines.clientHeight / 3;
    }
  }

  // One line at a time takes the focus: ten thousand would be in the way of the Tab key.
  focusable(row) {
    if (this.reached) this.reached.button.tabIndex = -1;
    this.reached = row;
    if (row) row.button.tabIndex = 0;
  }

  // ------------------------------------------------ input

  listen() {
    const { signal } = this.life;
    const on = (target, type, handle) => target.addEventListener(type, handle, { signal });
    const { words, lines, copy } = this.parts;
    on(document, "scanonce-time", ({ detail }) => this.rows && this.at(detail.seconds));
    on(words, "input", () => {
      clearTimeout(this.timers.search);
      this.timers.search = setTimeout(() => this.filter(), SEARCH_MS);
    });
    on(lines, "click", (event) => {
      const row = this.rowOf(event);
      if (!row || !window.getSelection().isCollapsed) return; // a person selects text
      this.focusable(row);
      document.dispatchEvent(new CustomEvent("scanonce-jump", { detail: { seconds: row.start } }));
    });
    on(lines, "keydown", (event) => this.move(event));
    on(copy, "click", () => this.copy());
  }

  rowOf(event) {
    const button = event.target.closest("button");
    return button ? this.rows[Number(button.dataset.number)] : undefined;
  }

  move(event) {
    const at = this.shown.indexOf(this.rowOf(event));
    const last = this.shown.length - 1;
    const goal = { ArrowUp: at - 1, ArrowDown: at + 1, PageUp: at - 10, PageDown: at + 10, Home: 0, End: last }[event.key];
    if (at < 0 || goal === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.focusable(this.shown[Math.min(Math.max(goal, 0), last)]);
    this.reached.button.focus();
  }

  async copy() {
    const text = this.shown.map(({ start, text }) => `${clockOf(start)}  ${text}`).join("\n");
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      if (!this.copyOldWay(text)) return this.tell("The browser does not allow copying.");
    }
    this.tell(`${this.shown.length.toLocaleString("en")} copied`);
  }

  // Browsers give pages without https no clipboard, but copy what is selected.
  copyOldWay(text) {
    const area = element("textarea");
    area.value = text;
    area.style.cssText = "position: fixed; opacity: 0";
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    this.parts.copy.focus();
    return isDone;
  }

  close() {
    this.life.abort();
    Object.values(this.timers).forEach(clearTimeout);
  }
}

export default function (component) {
  const { parentElement } = component;
  const transcript = (parentElement.transcript ??= new Transcript(parentElement));
  transcript.update(component);
  return () => {
    transcript.close();
    if (parentElement.transcript === transcript) delete parentElement.transcript;
  };
}
