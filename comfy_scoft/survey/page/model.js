// What is asked, what is answered, and where it is kept. Nothing here touches the page's elements.
"use strict";

const survey = JSON.parse(document.getElementById("survey").textContent);
const count = survey.pages[0].images.length;
const LETTERS = "ABCDEF";
const STORE = "scoft-survey:" + survey.id;

/** A sentence in the survey's language with its {values} filled in. */
function say(name, values = {}) {
  return survey.text[name].replace(/\{(\w+)\}/g, (whole, key) => (key in values ? String(values[key]) : whole));
}

// --- order: random, and made again from the participant's token alone

/** Numbers in [0, 1) that follow from a text: FNV-1a of it, then a counter through MurmurHash3's finaliser. */
function randomOf(text) {
  let state = 2166136261;
  for (let i = 0; i < text.length; i++) state = Math.imul(state ^ text.charCodeAt(i), 16777619);
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let mixed = state ^ (state >>> 16);
    mixed = Math.imul(mixed, 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 4294967296;
  };
}

/** A shuffled copy (Fisher and Yates). */
function shuffled(list, random) {
  const out = list.slice();
  for (let i = out.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [out[i], out[j]] = [out[j], out[i]];
  }
  return out;
}

/** The images of a page as one participant sees them. */
function shownImages(participant, page) {
  return shuffled(page.images, randomOf(participant + "/" + page.id));
}

/** The pages as one participant sees them: a page that is shown again comes after its first showing, far from it. */
function shownPages(participant) {
  const random = randomOf(participant);
  let best = null;
  for (let attempt = 0; attempt < (survey.pages.some((page) => page.repeats) ? 20 : 1); attempt++) {
    const order = shuffled(survey.pages, random);
    let gap = Infinity;
    for (const page of survey.pages.filter((page) => page.repeats)) {
      const first = order.findIndex((other) => other.id === page.repeats);
      const again = order.indexOf(page);
      if (again < first) [order[first], order[again]] = [order[again], order[first]];
      gap = Math.min(gap, Math.abs(again - first));
    }
    if (best === null || gap > best.gap) best = { order, gap };
  }
  return best.order;
}

/** A random UUID (version 4); randomUUID itself is missing from older phones. */
function newToken() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 15) | 64;
  bytes[8] = (bytes[8] & 63) | 128;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

// --- state, kept in the browser so that a reload loses nothing

let storageWorks = true;

function freshState() {
  return {
    participant: newToken(),
    consented: false,
    country: "",
    years: null,
    started: null,
    finished: null,
    at: 0,
    answers: {},
    revising: false,
  };
}

function loadState() {
  try {
    const found = JSON.parse(localStorage.getItem(STORE));
    const sound =
      found && typeof found.participant === "string" && typeof found.answers === "object" && Number.isInteger(found.at);
    return sound ? Object.assign(freshState(), found) : null;
  } catch (error) {
    return null;
  }
}

function saveState() {
  try {
    localStorage.setItem(STORE, JSON.stringify(state));
    storageWorks = localStorage.getItem(STORE) !== null;
  } catch (error) {
    storageWorks = false;
  }
}

function forgetState() {
  try {
    localStorage.removeItem(STORE);
  } catch (error) {
    storageWorks = false;
  }
}

// --- one ranking: `count` places, each empty or with one picture, so that two pictures can never share a place

/** The places of a page under an item, the best first; null is an empty place. */
function placesOf(page, item) {
  const kept = state.answers[page.id] && state.answers[page.id][item.id];
  const given = Array.isArray(kept) ? kept.filter(Boolean) : [];
  const sound =
    given.every((image) => page.images.includes(image)) &&
    new Set(given).size === given.length &&
    given.length !== count - 1; // the last picture left gets the last place, so somebody else kept this
  return sound && given.length && kept.length === count ? kept.slice() : Array(count).fill(null);
}

function keepPlaces(page, item, places) {
  (state.answers[page.id] = state.answers[page.id] || {})[item.id] = places;
  state.finished = null;
  saveState();
}

/**
 * A picture takes a place. The picture that was there gets the place that this one had, or the nearest free one, the
 * worse first; the last picture left gets the last place. So no picture loses its place to another.
 */
function placed(places, image, place, all) {
  const out = places.slice();
  const free = places.includes(image) ? places.indexOf(image) : places.indexOf(null, place);
  out[free >= 0 ? free : places.lastIndexOf(null)] = places[place];
  out[place] = image;
  const left = all.filter((other) => !out.includes(other));
  if (left.length === 1) out[out.indexOf(null)] = left[0];
  return out;
}

/** One choice less: the worst place is free again; of a whole order, whose last place fills itself, the last two. */
function takenBack(places) {
  const given = isWhole(places) ? places.slice(0, -1) : places;
  const last = given.reduce((found, image, place) => (image ? place : found), 0);
  return places.map((image, place) => (place < last ? image : null));
}

const isWhole = (places) => places.every(Boolean);

function isComplete(page, item) {
  return isWhole(placesOf(page, item));
}

// --- what leaves

/** The answers as the organiser's tools read them: finished rankings only, pages and images in the order shown. */
function answersToExport() {
  const pages = shownPages(state.participant).map((page) => {
    const done = survey.items.filter((item) => isComplete(page, item));
    return {
      page: page.id,
      shown: shownImages(state.participant, page),
      ranks: Object.fromEntries(done.map((item) => [item.id, placesOf(page, item)])),
    };
  });
  return {
    format: survey.answer_format,
    version: survey.answer_version,
    survey: survey.id,
    survey_hash: survey.hash,
    participant: state.participant,
    consented: state.consented,
    affiliation: { country: state.country, years: state.years },
    language: survey.language,
    started: state.started,
    finished: state.finished,
    pages: pages.filter((page) => Object.keys(page.ranks).length),
  };
}

function exportName() {
  return "answers-" + survey.id + "-" + state.participant.slice(0, 8) + ".json";
}

let state = loadState() || freshState();
