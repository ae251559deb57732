// Which screen is shown, going back and forth, and the start.

/** Every screen in order: the start, each page under each item, the review, the end. */
function steps() {
  const asked = shownPages(state.participant).flatMap((page, number) =>
    survey.items.map((item) => ({ page, item, number })),
  );
  return [{ screen: startScreen }, ...asked, { screen: reviewScreen }, { screen: doneScreen }];
}

function stepOf(page, item) {
  return steps().findIndex((step) => step.page === page && step.item === item);
}

/** The furthest screen that may be shown: the first one not answered yet. */
function furthest(all) {
  if (!state.consented) return 0;
  const open = all.findIndex((step) => step.page && !isComplete(step.page, step.item));
  return open >= 0 ? open : state.finished ? all.length - 1 : all.length - 2;
}

/** Shows a screen, keeps where one is, and lets the browser's own Back button come back here. */
function goTo(number, remember = true) {
  const all = steps();
  state.at = Math.max(0, Math.min(number, furthest(all)));
  if (remember) {
    try {
      history.pushState({ at: state.at }, "", "#" + state.at);
    } catch (error) {
      // A browser that keeps no history for local files: the page's own buttons still go back and forth.
    }
  }
  closeDialog(document.getElementById("viewer"));
  const step = all[state.at];
  if (!step.page) state.revising = false;
  saveState();
  document.getElementById("main").replaceChildren(step.page ? rankingScreen(step.page, step.item) : step.screen());
  showProgress(step);
  showWarning();
  document.getElementById("restart").hidden = !state.consented;
  window.scrollTo(0, 0);
  const heading = document.querySelector("main h1");
  if (heading) heading.focus({ preventScroll: true });
}

/** Back and Next; who came from the review to change an answer goes straight back there. fault: what keeps one here. */
function navigation(fault) {
  const forward = () => {
    const words = fault();
    document.getElementById("fault").textContent = words;
    if (!words) goTo(state.revising ? steps().length - 2 : state.at + 1);
  };
  return element(
    "div",
    { class: "nav" },
    button(say("back"), () => goTo(state.at - 1)),
    button(say(state.revising ? "to_review" : "next"), forward, { class: "main" }),
  );
}

function showProgress(step) {
  const box = document.getElementById("progress");
  box.hidden = !step.page;
  document.getElementById("title").hidden = !step.page;
  document.title = survey.title;
  if (!step.page) return;
  const total = survey.pages.length * survey.items.length;
  const words = say("page_of", { page: step.number + 1, pages: survey.pages.length });
  document.getElementById("progress-text").textContent = words;
  document.getElementById("progress-bar").style.width = (100 * (state.at - 1)) / total + "%";
  document.title = words + " · " + survey.title;
}

function showWarning() {
  const warning = document.getElementById("warning");
  warning.hidden = storageWorks;
  warning.textContent = storageWorks ? "" : say("storage_warning");
}

function begin() {
  document.getElementById("title").textContent = survey.title;
  document.documentElement.style.setProperty("--ratio", String(survey.size[0] / survey.size[1]));
  const restart = document.getElementById("restart");
  restart.textContent = say("restart");
  restart.addEventListener("click", askToRestart);
  window.addEventListener("popstate", (event) => {
    if (event.state && Number.isInteger(event.state.at)) goTo(event.state.at, false);
  });
  window.addEventListener("storage", (event) => {
    if (event.key !== STORE) return; // the page is open twice: what was answered on the other one is not overwritten
    state = loadState() || freshState();
    goTo(state.at, false);
  });
  const resumed = state.at;
  goTo(resumed, false);
  try {
    history.replaceState({ at: state.at }, "", "#" + state.at);
  } catch (error) {
    // As above.
  }
  if (resumed > 0) announce(say("resumed"));
}

begin();
