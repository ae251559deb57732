// The screen of one page under one question: pictures, their places, and the enlarged view.

/** The screen, as an element. Every change is kept at once. */
function rankingScreen(page, item) {
  const images = shownImages(state.participant, page);
  const letterOf = (image) => LETTERS[images.indexOf(image)];
  const named = (image) => say("picture", { letter: letterOf(image) });
  const [question, ...hints] = item.question.split("\n");
  let places = placesOf(page, item);

  const said = (image) => {
    const values = { letter: letterOf(image), rank: places.indexOf(image) + 1, n: count };
    return say(values.rank ? "said_placed" : "said_taken", values);
  };
  const change = (next) => {
    const all = [...next.filter(Boolean), ...images.filter((image) => !next.includes(image))];
    const moved = all.filter((image) => places.indexOf(image) !== next.indexOf(image));
    if (!moved.length) return;
    places = next;
    keepPlaces(page, item, places);
    refresh();
    announce([...moved.map(said), isWhole(places) ? say("said_complete") : ""].join(" "));
  };
  const put = (image, place) => change(placed(places, image, place, images));
  /** A picture is chosen: it gets the next place. One that has a place keeps it, and how to change that is said. */
  const choose = (image) => {
    const rank = places.indexOf(image) + 1;
    if (!rank) return put(image, places.indexOf(null));
    note.textContent = say("said_again", { letter: letterOf(image), rank, n: count });
    announce(note.textContent);
  };
  const keys = (event, image) => {
    const typed = Number(event.key) || Number((/^Digit(\d)$/.exec(event.code) || [])[1]); // keyboards have digits of their own
    const place = typed - 1;
    if (event.ctrlKey || event.metaKey || event.altKey || !(image && place in places)) return;
    put(image, place);
    event.preventDefault();
  };

  const enlarge = (image) => viewer.show(image);
  const cards = images.map((image) => card(image, named(image), { choose, put, keys, enlarge }));
  const slots = places.map((_, place) =>
    slot(place, { at: () => places[place], put, keys, enlarge, focus: (next) => slots[next].press.focus() }),
  );
  const undo = button(say("undo"), () => change(takenBack(places)), { class: "quiet undo" });
  const viewer = enlargedView(images, named, { put, keys, rankOf: (image) => places.indexOf(image) });
  const note = element("p", { class: "hint", "aria-hidden": "true" });
  const fault = element("p", { class: "fault", role: "alert", id: "fault" });
  const refresh = () => {
    note.textContent = fault.textContent = "";
    cards.forEach((entry) => entry.show(places.indexOf(entry.image) + 1));
    slots.forEach((entry, place) => entry.show(places[place], places[place] && named(places[place])));
    undo.setAttribute("aria-disabled", String(!places.some(Boolean)));
    viewer.refresh();
  };

  const screen = element(
    "div",
    { class: "ranking" },
    element("p", { class: "label", text: say("description") }),
    element("p", { class: "prompt", dir: "auto", text: page.prompt }),
    element(
      "div",
      { class: "asked" },
      element(
        "p",
        { class: "label" },
        element("span", { class: "count", text: questionNumber(item) }),
        element("span", { dir: "auto", text: item.title }),
      ),
      element("h1", { tabindex: "-1", dir: "auto", text: question }),
      ...hints.map((text) => element("p", { class: "hint", dir: "auto", text })),
    ),
    isFirst() || state.revising ? element("p", { class: "how", text: say("how") }) : null,
    element("ul", { class: "pictures of-" + count }, ...cards.map((entry) => entry.whole)),
    element(
      "details",
      { class: "ways" },
      element("summary", { text: say("ways") }),
      element("p", { text: say("how") }),
      element("p", { text: say("ways_text", { n: count }) }),
    ),
    element(
      "div",
      { class: "dock" },
      element(
        "section",
        { class: "order", "aria-label": say("your_order") },
        ends(undo),
        element("ol", {}, ...slots.map((entry) => entry.whole)),
      ),
      element(
        "div",
        { class: "onward" },
        note,
        fault,
        navigation(() => faultOf(places, images, letterOf)),
      ),
    ),
  );
  refresh();
  return screen;
}

/** "best" over the first place and "worst" over the last, and what stands between. */
function ends(between) {
  const end = (name) => element("span", { text: say(name), "aria-hidden": "true" });
  return element("div", { class: "ends" }, end("best"), between, end("worst"));
}

/** Whether nothing is ranked yet, so that how to do it is said in full. */
function isFirst() {
  return !survey.pages.some((page) => survey.items.some((item) => isComplete(page, item)));
}

/** "Question 2 of 4", or "" where there is one question only. */
function questionNumber(item) {
  const items = survey.items.length;
  return items > 1 ? say("question_of", { item: survey.items.indexOf(item) + 1, items }) : "";
}

/** One picture with its letter, its rank and a button that enlarges it. */
function card(image, name, { choose, put, keys, enlarge }) {
  const badge = element("span", { class: "badge", "aria-hidden": "true" });
  const press = element(
    "button",
    { type: "button", class: "picture", on: { click: () => choose(image), keydown: (event) => keys(event, image) } },
    picture(image, name),
    badge,
  );
  makeDraggable(press, false, () => image, put);
  const more = element(
    "button",
    { type: "button", class: "enlarge", "aria-label": say("enlarge", { picture: name }), on: { click: () => enlarge(image) } },
    sign(SIGNS.enlarge),
  );
  const whole = element(
    "li",
    { class: "card", "data-image": image },
    press,
    element("span", { class: "letter", "aria-hidden": "true", text: name }),
    more,
  );
  const show = (rank) => {
    whole.classList.toggle("ranked", rank > 0);
    badge.textContent = rank || "";
    press.setAttribute("aria-label", name + ", " + (rank ? say("ranked", { rank, n: count }) : say("unranked")));
  };
  return { image, whole, show };
}

/** One place of the order: a target for dragging, and a button that enlarges the picture in it. */
function slot(place, { at, put, keys, enlarge, focus }) {
  const forward = document.documentElement.dir === "rtl" ? "ArrowLeft" : "ArrowRight";
  const backward = forward === "ArrowRight" ? "ArrowLeft" : "ArrowRight";
  const press = element("button", {
    type: "button",
    on: {
      click: () => enlarge(at()),
      keydown: (event) => {
        const image = at();
        const next = place + (event.key === forward ? 1 : event.key === backward ? -1 : 0);
        if (image && next !== place && next >= 0 && next < count) {
          event.preventDefault();
          put(image, next);
          focus(next);
        } else keys(event, image);
      },
    },
  });
  makeDraggable(press, true, at, put);
  const whole = element(
    "li",
    { "data-place": place },
    element("span", { class: "number", "aria-hidden": "true", text: place + 1 }),
    press,
  );
  const show = (image, name) => {
    press.disabled = !image;
    press.replaceChildren(...(image ? [picture(image, "")] : []));
    press.setAttribute(
      "aria-label",
      image ? say("place_filled", { rank: place + 1, picture: name }) : say("place_empty", { rank: place + 1 }),
    );
    whole.classList.toggle("filled", Boolean(image));
  };
  return { whole, press, show };
}

/** A dialog with one picture as large as the window lets it be; it can be ranked there too. */
function enlargedView(images, named, { put, keys, rankOf }) {
  const dialog = document.getElementById("viewer");
  let shown = images[0];
  const step = (by) => show(images[(images.indexOf(shown) + by + images.length) % images.length]);
  const heading = element("h2", { tabindex: "-1" });
  const frame = element("div", { class: "frame" });
  const ranks = Array.from({ length: count }, (_, place) =>
    button(String(place + 1), () => put(shown, place), { class: "rank" }),
  );
  const refresh = () =>
    ranks.forEach((entry, place) => {
      entry.setAttribute("aria-pressed", String(rankOf(shown) === place));
      entry.setAttribute("aria-label", say("give_rank", { rank: place + 1 }));
    });
  const show = (image) => {
    if (!dialog.open) fill();
    shown = image;
    heading.textContent = named(image);
    frame.replaceChildren(picture(image, named(image)));
    refresh();
    openDialog(dialog);
    heading.focus();
  };
  const fill = () => {
    dialog.setAttribute("aria-label", say("enlarged"));
    dialog.replaceChildren(
      element(
        "div",
        { class: "head" },
        heading,
        element(
          "button",
          { type: "button", class: "icon", "aria-label": say("close"), on: { click: () => closeDialog(dialog) } },
          sign(SIGNS.close),
        ),
      ),
      frame,
      element(
        "div",
        { class: "ranks", role: "group", "aria-label": say("ranks") },
        ends(),
        element("div", {}, ...ranks),
      ),
      element(
        "div",
        { class: "nav" },
        button(say("previous_picture"), () => step(-1)),
        button(say("next_picture"), () => step(1)),
      ),
    );
    dialog.onkeydown = (event) => keys(event, shown);
  };
  return { show, refresh };
}

/** What still keeps a page from being left forwards, as a sentence; "" for nothing. */
function faultOf(places, images, letterOf) {
  const left = images.filter((image) => !places.includes(image));
  return left.length ? say("need_all", { letters: left.map(letterOf).join(", ") }) : "";
}
