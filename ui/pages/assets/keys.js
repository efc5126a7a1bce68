// Keys of all pages. The box for the query is Streamlit's: it has the type "search". When another query is entered, the
// grids hear of it by the event "scanonce-ask" of the document, and dim what they show.

const box = () => document.querySelector("input[type=search]");

// On a page without a query the box has the focus from the start, unless a person was faster.
function focusFirst(tries = 40) {
  if (document.activeElement !== document.body || new URL(location.href).searchParams.get("q")) return;
  const isStart = location.pathname.replace(/\/$/, "") === "" || location.pathname === "/search";
  if (!isStart) return;
  if (box()) box().focus();
  else if (tries > 0) setTimeout(() => focusFirst(tries - 1), 100);
}

export default function ({ parentElement }) {
  const dialog = parentElement.querySelector("dialog");
  const life = new AbortController();
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.composedPath()[0];
    const isText = /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName ?? "") && target.type !== "checkbox";
    if (event.key === "Enter" && target === box()) {
      const before = new URL(location.href).searchParams.get("q") ?? "";
      const asked = target.value.trim();
      if (asked && asked !== before) document.dispatchEvent(new CustomEvent("scanonce-ask"));
      return;
    }
    if (isText || target.isContentEditable) return;
    if (event.key === "/" && box()) {
      box().focus();
      box().select();
    } else if (event.key === "?") {
      if (dialog.open) dialog.close();
      else dialog.showModal();
    } else {
      return;
    }
    event.preventDefault();
  };
  document.addEventListener("keydown", onKey, { signal: life.signal });
  focusFirst();
  return () => life.abort();
}
