// Dragging pictures to places with a mouse or pen, and with a finger from the row of places.

const FAR_ENOUGH = 6; // pixels; less is a click

/** Lets a button's picture be dragged. imageOf: what is dragged, or null; drop(image, place): where it was let go. */
function makeDraggable(source, fingers, imageOf, drop) {
  source.addEventListener("pointerdown", (start) => {
    const image = imageOf();
    if (!image || start.button !== 0 || (start.pointerType === "touch" && !fingers)) return;
    let ghost = null;
    let target = null;

    const follow = (event) => {
      if (event.pointerId !== start.pointerId) return;
      if (!ghost && Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) < FAR_ENOUGH) return;
      ghost = ghost || makeGhost(source, image);
      ghost.style.transform = `translate(${event.clientX}px, ${event.clientY}px) translate(-50%, -50%)`;
      const found = placeAt(event.clientX, event.clientY);
      if (target !== found) {
        if (target) target.classList.remove("over");
        if (found) found.classList.add("over");
        target = found;
      }
    };
    const stop = (event) => {
      if (event.pointerId !== start.pointerId) return;
      for (const [name, handler] of Object.entries(handlers)) window.removeEventListener(name, handler);
      if (!ghost) return;
      ghost.remove();
      document.body.classList.remove("dragging");
      if (target) target.classList.remove("over");
      swallowClick();
      if (event.type === "pointerup" && target) drop(image, Number(target.dataset.place));
    };
    const handlers = { pointermove: follow, pointerup: stop, pointercancel: stop };
    for (const [name, handler] of Object.entries(handlers)) window.addEventListener(name, handler);
  });
}

function makeGhost(source, image) {
  const ghost = picture(image, "");
  ghost.className = "ghost";
  document.body.append(ghost);
  document.body.classList.add("dragging");
  return ghost;
}

function placeAt(x, y) {
  const under = document.elementFromPoint(x, y);
  return under && under.closest("[data-place]");
}

/** The click that a browser sends after a drag is no choice. */
function swallowClick() {
  const swallow = (event) => {
    event.preventDefault();
    event.stopPropagation();
  };
  window.addEventListener("click", swallow, { capture: true, once: true });
  setTimeout(() => window.removeEventListener("click", swallow, { capture: true }), 50);
}
