// The other screens: consent and affiliation, the review of all answers, and the end where answers leave.

function startScreen() {
  const agree = element("input", {
    type: "checkbox",
    id: "agree",
    "aria-describedby": "agree-fault",
    checked: state.consented,
  });
  const country = element("input", {
    type: "text",
    id: "country",
    maxlength: 100,
    autocomplete: "off",
    "aria-describedby": "country-hint country-fault",
    value: state.country,
  });
  const years = element("input", {
    type: "text",
    id: "years",
    inputmode: "decimal",
    maxlength: 6,
    autocomplete: "off",
    "aria-describedby": "years-hint years-fault",
    value: state.years === null ? "" : state.years,
  });
  const begin = (event) => {
    event.preventDefault();
    const typed = latinDigits(years.value.trim());
    const number = typed === "" ? null : Number(typed.replace(",", "."));
    const wrong = [
      mark(agree, !agree.checked, "need_consent"),
      mark(country, !country.value.trim(), "need_country"),
      mark(years, number !== null && !(number >= 0 && number <= 120), "need_years"),
    ].filter(Boolean);
    if (wrong.length) return wrong[0].focus();
    Object.assign(state, {
      consented: true,
      country: country.value.trim(),
      years: number,
      started: state.started || new Date().toISOString(),
    });
    saveState();
    goTo(1);
  };
  return element(
    "form",
    { class: "start", novalidate: true, autocomplete: "off", on: { submit: begin } },
    element("h1", { tabindex: "-1", dir: "auto", text: survey.title }),
    element("p", { class: "lead", text: say("lead", { n: count }) }),
    element("p", { class: "facts", text: say("facts", { pages: survey.pages.length, minutes: minutes() }) }),
    element(
      "ol",
      { class: "steps" },
      ...["step_read", "step_rank", "step_save"].map((name) => element("li", { text: say(name) })),
    ),
    element("h2", { text: say("consent_heading") }),
    element("div", { class: "consent" }, ...survey.consent.map((text) => element("p", { dir: "auto", text }))),
    element("label", { class: "agree", for: "agree" }, agree, element("span", { text: say("consent_agree") })),
    element("p", { class: "fault", id: "agree-fault" }),
    element("h2", { text: say("about_heading") }),
    field(country, say("country_label"), say("country_hint")),
    field(years, say("years_label"), say("years_hint")),
    element(
      "div",
      { class: "nav" },
      element("button", { type: "submit", class: "main", text: say(state.started ? "go_on" : "begin") }),
    ),
  );
}

/** A text with full-width, Devanagari and Arabic digits as 0 to 9. */
function latinDigits(text) {
  return text.normalize("NFKC").replace(/[०-९٠-٩۰-۹]/g, (digit) => (digit.charCodeAt(0) - 6 * (digit >= "०")) & 15);
}

/** About ten seconds for each ranked item, rounded up to whole minutes. */
function minutes() {
  return Math.max(1, Math.ceil((survey.pages.length * survey.items.length * (4 + 3 * count)) / 60));
}

function field(input, label, hint) {
  return element(
    "div",
    { class: "field" },
    element("label", { for: input.id, text: label }),
    element("p", { class: "hint", id: input.id + "-hint", text: hint }),
    input,
    element("p", { class: "fault", id: input.id + "-fault" }),
  );
}

/** Says beside an input what is missing, and returns the input; null where nothing is. */
function mark(input, wrong, sentence) {
  document.getElementById(input.id + "-fault").textContent = wrong ? say(sentence) : "";
  if (wrong) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
  return wrong ? input : null;
}

function reviewScreen() {
  const revise = (page, item) => {
    state.revising = true;
    goTo(stepOf(page, item));
  };
  const pages = shownPages(state.participant);
  const row = (page, item, number) => {
    const images = placesOf(page, item).filter(Boolean);
    const letters = images.map((image) => LETTERS[shownImages(state.participant, page).indexOf(image)]);
    return element(
      "li",
      { class: "answer" },
      element("span", { class: "name", dir: "auto", text: item.title }),
      element(
        "ol",
        { class: "thumbs" },
        ...images.map((image, i) =>
          element(
            "li",
            {},
            picture(image, say("picture", { letter: letters[i] })),
            element("span", { class: "number", "aria-hidden": "true", text: i + 1 }),
          ),
        ),
      ),
      button(say("change"), () => revise(page, item), {
        class: "quiet",
        "aria-label": say("change_label", { title: item.title, page: number }),
      }),
    );
  };
  const finish = () => {
    const missing = steps().findIndex((step) => step.page && !isComplete(step.page, step.item));
    if (missing >= 0) return goTo(missing);
    state.finished = state.finished || new Date().toISOString();
    saveState();
    goTo(steps().length - 1);
  };
  return element(
    "div",
    { class: "review" },
    element("h1", { tabindex: "-1", text: say("review_heading") }),
    element("p", { class: "lead", text: say("review_intro") }),
    ...pages.map((page, i) =>
      element(
        "section",
        { class: "reviewed" },
        element(
          "h2",
          {},
          element("span", { class: "label", text: say("page_of", { page: i + 1, pages: pages.length }) }),
          element("span", { class: "prompt", dir: "auto", text: page.prompt }),
        ),
        element("ul", {}, ...survey.items.map((item) => row(page, item, i + 1))),
      ),
    ),
    element(
      "div",
      { class: "onward" },
      element(
        "div",
        { class: "nav" },
        button(say("back"), () => goTo(state.at - 1)),
        button(say("finish"), finish, { class: "main" }),
      ),
    ),
  );
}

function doneScreen() {
  const text = element("textarea", { id: "answers", readonly: true, rows: 5, dir: "ltr", spellcheck: "false" });
  text.value = JSON.stringify(answersToExport(), null, 1);
  const told = element("p", { class: "told", role: "status" });
  const save = () => {
    saveFile();
    told.textContent = say("saved", { name: exportName() });
  };
  const copy = async () => {
    const copied = await copyText(text);
    told.textContent = say(copied ? "copied" : "copy_failed");
  };
  return element(
    "div",
    { class: "done" },
    element("h1", { tabindex: "-1", text: say("done_heading") }),
    element("p", { class: "lead", text: say("done_intro") }),
    element("div", { class: "nav column" }, button(say("save"), save, { class: "main" }), button(say("copy"), copy)),
    told,
    element(
      "details",
      { class: "ways" },
      element("summary", { text: say("as_text") }),
      element("label", { for: "answers", class: "hint", text: say("as_text_hint") }),
      text,
    ),
    element(
      "div",
      { class: "nav" },
      button(say("to_review"), () => goTo(state.at - 1)),
      button(say("next_participant"), askToRestart),
    ),
  );
}

/** Downloads the answers. */
function saveFile() {
  const file = new Blob([JSON.stringify(answersToExport(), null, 1) + "\n"], { type: "application/json" });
  const link = element("a", { href: URL.createObjectURL(file), download: exportName() });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/** Copies a text field; by selecting it where the browser gives a local file no clipboard. */
async function copyText(field) {
  try {
    await navigator.clipboard.writeText(field.value);
    return true;
  } catch (error) {
    const details = field.closest("details");
    if (details) details.open = true;
    field.focus();
    field.select();
    try {
      return document.execCommand("copy");
    } catch (refused) {
      return false;
    }
  }
}

/** The next person on a shared phone: asks first, saves the answers, then clears them. */
function askToRestart() {
  const dialog = document.getElementById("question");
  const some = answersToExport().pages.length > 0;
  const restart = () => {
    if (some) saveFile();
    forgetState();
    state = freshState();
    closeDialog(dialog);
    goTo(0);
  };
  dialog.setAttribute("aria-labelledby", "question-heading");
  dialog.replaceChildren(
    element("h2", { id: "question-heading", text: say("restart_heading") }),
    element("p", { text: say(some ? "restart_text" : "restart_text_empty") }),
    element(
      "div",
      { class: "nav" },
      button(say("cancel"), () => closeDialog(dialog)),
      button(say(some ? "restart_yes" : "restart_yes_empty"), restart, { class: "main" }),
    ),
  );
  openDialog(dialog);
}
