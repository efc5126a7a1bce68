// A grid of moments. data: {cards, leaders, picks, seen, label, live, is_answer, divider, divider_text, can_judge}; a card: {key, href,
// name, path, where, span, at, word, match, picture: {src, alt}, frames, reasons}; a reason: {channel, value, pieces:
// [[text, marked]]}; leaders: for each card the key of the one it is folded into, or null; divider: the position of the
// first card below it, or null; live: what is announced when it changes; is_answer: whether another query replaces
// these moments, which are dimmed meanwhile. Results: trigger "open" (the key of a card), state "acts" ({key, picked}, see `Acts`),
// trigger "judge" ({sign: "more" or "less", key}).
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

// The picture of a card. While the pointer moves over the card it shows the moment: all its stored thumbnails come in
// one answer, once, and are shown from memory.
function makePicture(card, item) {
  const box = element("div", "picture");
  const image = thumbnail(card.picture.src, card.picture.alt);
  const bar = element("span", "progress");
  box.append(image, element("span", "at", card.at), bar);
  let frames = null;
  const load = async () => {
    frames = [];
    const answer = await fetch(card.frames).catch(() => null);
    if (answer?.ok) frames = (await answer.json()).images.map((each) => `data:image/jpeg;base64,${each}`);
  };
  item.onpointerenter = (event) => {
    if (event.pointerType !== "touch" && frames === null) load();
  };
  item.onpointermove = (event) => {
    if (event.pointerType === "touch" || !frames?.length) return;
    const { left, width } = item.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - left) / width, 0), 0.999);
    const shown = frames[Math.floor(share * frames.length)];
    if (image.src !== shown) image.src = shown;
    bar.style.width = `${100 * share}%`;
  };
  item.onpointerleave = () => {
    if (bar.style.width) image.src = card.picture.src;
    bar.style.width = "";
  };
  return box;
}

function makeCard(card, grid, canJudge) {
  const item = element("li", `card ${card.word}`);
  const facts = element("div", "facts");
  const open = linkTo(card.href, card.name, () => grid.open(card.key));
  open.title = card.path;
  open.setAttribute("aria-label", `${card.name}, ${card.span}, ${card.match}`);
  facts.append(open, element("div", "where", card.where));

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

  item.append(makePicture(card, item), facts);
  if (card.reasons.length) item.append(makeReasons(card.reasons));
  item.append(line);
  return { item, box, made: JSON.stringify(card) };
}

// "+6 similar" on the card that others are folded into; pressed again it folds them back.
function showFolds(grid, leaders) {
  const folded = new Map();
  leaders.forEach((leader, k) => leader && folded.set(leader, [...(folded.get(leader) ?? []), [...grid.cards.keys()][k]]));
  for (const [key, { item }] of grid.cards) {
    item.querySelector(".similar")?.remove();
    const like = folded.get(key);
    if (!like) continue;
    const isOpen = grid.unfolded.has(key);
    const button = element("button", "similar", isOpen ? `hide ${like.length} similar` : `+${like.length} similar`);
    button.type = "button";
    button.setAttribute("aria-expanded", String(isOpen));
    button.onclick = () => {
      if (isOpen) grid.unfolded.delete(key);
      else grid.unfolded.add(key);
      showFolds(grid, leaders);
      grid.cards.get(key).item.querySelector(".similar").focus();
    };
    item.querySelector(".facts").append(button);
  }
  leaders.forEach((leader, k) => {
    const { item } = [...grid.cards.values()][k];
    item.hidden = leader !== null && !grid.unfolded.has(leader);
    item.classList.toggle("folded", leader !== null);
  });
}

export default function ({ data, parentElement, setTriggerValue, setStateValue }) {
  const grid = (parentElement.grid ??= { cards: new Map(), picks: new Set(), acts: new Acts(), unfolded: new Set() });
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
    grid.show();
    grid.acts.add({ key, picked }, setStateValue);
  };

  const list = parentElement.querySelector(".grid");
  list.classList.remove("old");
  list.removeAttribute("aria-busy");
  const live = parentElement.querySelector(".live");
  if (live.textContent !== data.live) setTimeout(() => (live.textContent = data.live), 100);
  // an answer to an earlier click must not undo a later click
  if (grid.acts.acknowledge(data.seen)) grid.picks = new Set(data.picks);
  const cards = new Map();
  for (const card of data.cards) {
    const old = grid.cards.get(card.key);
    cards.set(card.key, old && old.made === JSON.stringify(card) ? old : makeCard(card, grid, data.can_judge));
  }
  grid.cards = cards;
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
  showFolds(grid, data.leaders);
  grid.show();
  const life = new AbortController();
  const dim = () => {
    list.classList.add("old");
    list.setAttribute("aria-busy", "true");
    // the same answer again is no news of Python
    setTimeout(() => (list.classList.remove("old"), list.removeAttribute("aria-busy")), 15_000);
  };
  if (data.is_answer) document.addEventListener("scanonce-ask", dim, { signal: life.signal });
  return () => life.abort();
}
