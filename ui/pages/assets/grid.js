// A grid of moments. data: {cards, picks, version, label, divider, divider_text, can_judge}; a card: {key, href, name, path, span,
// word, match, thumbnails, reasons}; a reason: {channel, value, pieces: [[text, marked]]}; divider: the position of the first card below it, or null. Results: trigger "open" (the key of a card), state "picks" ({version, keys}: all picks, on all pages), trigger "judge" ({sign: "more" or "less", key}).
// Names and times come from files: they are set as text and attributes, never as HTML.

// Why a moment is in the answer: "seen 71 %", or the words that were said or are written there.
function makeReasons(reasons) {
  const list = element("ul", "reasons");
  list.setAttribute("aria-label", "found because");
  for (const { channel, value, pieces } of reasons) {
    const chip = element("li", `reason ${channel}`);
    chip.append(element("span", "channel", channel), " ");
    if (pieces.length) {
      const words = element("q");
      words.append(...pieces.map(([text, marked]) => (marked ? element("mark", "", text) : text)));
      chip.append(words);
    } else {
      chip.append(value);
    }
    list.append(chip);
  }
  return list;
}

// Two buttons: others like this moment first, or later.
function makeJudging(card, grid) {
  const both = element("span", "judging");
  for (const [sign, mark] of [["more", "+"], ["less", "\u2212"]]) {
    const button = element("button", sign, mark);
    button.type = "button";
    button.title = `${sign} like this`;
    button.setAttribute("aria-label", `${sign} like ${card.name}, ${card.span}`);
    button.onclick = () => grid.judge(sign, card.key);
    both.append(button);
  }
  return both;
}

function makeCard(card, grid, canJudge) {
  const item = element("li", `card ${card.word}`);

  const strip = element("div", "strip");
  strip.append(...card.thumbnails.map(({ src, alt }) => thumbnail(src, alt)));

  const facts = element("div", "facts");
  const open = linkTo(card.href, card.name, () => grid.open(card.key));
  open.title = card.path;
  open.setAttribute("aria-label", `${card.name}, ${card.span}, ${card.match}`);
  facts.append(open, element("div", "span", card.span));

  const line = element("div", "line");
  const pick = element("label", "pick");
  const box = element("input");
  box.type = "checkbox";
  box.setAttribute("aria-label", `pick ${card.name}, ${card.span}`);
  box.onchange = () => grid.pick(card.key, box.checked);
  pick.append(box, element("span", "", "pick"));
  line.append(element("span", "match", card.match));
  if (canJudge) line.append(makeJudging(card, grid));
  line.append(pick);

  item.append(strip, facts);
  if (card.reasons.length) item.append(makeReasons(card.reasons));
  item.append(line);
  return { item, box, made: JSON.stringify(card) };
}

export default function ({ data, parentElement, setTriggerValue, setStateValue }) {
  const grid = (parentElement.grid ??= { cards: new Map(), picks: new Set(), version: -1 });
  grid.open = (key) => setTriggerValue("open", key);
  grid.judge = (sign, key) => setTriggerValue("judge", { sign, key });
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

  // an answer to an earlier click must not undo a later click
  if (data.version >= grid.version) {
    grid.version = data.version;
    grid.picks = new Set(data.picks);
  }
  const cards = new Map();
  for (const card of data.cards) {
    const old = grid.cards.get(card.key);
    cards.set(card.key, old && old.made === JSON.stringify(card) ? old : makeCard(card, grid, data.can_judge));
  }
  grid.cards = cards;
  const list = parentElement.querySelector(".grid");
  list.setAttribute("aria-label", data.label);
  const items = [...cards.values()].map(({ item }) => item);
  const turned = list.children.length > 0 && items[0] !== list.querySelector(".card");
  if (data.divider !== null) {
    grid.divider ??= element("li", "divider", data.divider_text);
    items.splice(data.divider, 0, grid.divider);
  }
  // unchanged cards are left in place: they keep the focus
  if (items.length !== list.children.length || items.some((item, k) => item !== list.children[k])) {
    list.replaceChildren(...items);
  }
  // a new page of results is shown from its top, although the button that turns it is below
  if (turned && list.getBoundingClientRect().top < 0) list.scrollIntoView({ block: "start" });
  grid.show();
}
