// Small helpers for the page: elements from plain data (text is always set as text), pictures, announcements.

/** An element. options: class, text, on (event handlers), any attribute; children that are null are left out. */
function element(tag, options = {}, ...children) {
  const out = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") out.textContent = value;
    else if (name === "class") out.className = value;
    else if (name === "on") for (const [event, handler] of Object.entries(value)) out.addEventListener(event, handler);
    else out.setAttribute(name, value === true ? "" : value);
  }
  out.append(...children.filter(Boolean));
  return out;
}

function button(text, handler, options = {}) {
  return element("button", { type: "button", text, on: { click: handler }, ...options });
}

/** A drawn sign that says nothing to a screen reader; the words stand beside it or in the label. */
function sign(path) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(space, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

const SIGNS = { enlarge: "M14 4h6v6M20 4l-7 7M10 20H4v-6M4 20l7-7", close: "M5 5l14 14M19 5L5 19" };

const addresses = {};

/** The address of a picture's bytes, made on first use. */
function addressOf(image) {
  const number = survey.pictures[image];
  if (!(number in addresses)) {
    const bytes = Uint8Array.from(atob(survey.data[number]), (letter) => letter.charCodeAt(0));
    addresses[number] = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
  }
  return addresses[number];
}

function picture(image, alt) {
  return element("img", {
    src: addressOf(image),
    alt,
    width: survey.size[0],
    height: survey.size[1],
    draggable: "false",
  });
}

/** Has screen readers say a sentence; the same sentence twice is said twice. */
function announce(text) {
  const live = document.getElementById("live");
  live.textContent = "";
  setTimeout(() => {
    live.textContent = text;
  }, 30);
}

/** Opens a dialog above the page. */
function openDialog(dialog) {
  if (dialog.open) return;
  if (dialog.showModal) dialog.showModal();
  else dialog.setAttribute("open", "");
}

function closeDialog(dialog) {
  if (dialog.close && dialog.open) dialog.close();
  dialog.removeAttribute("open");
}
