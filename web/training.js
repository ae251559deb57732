/* The live chart on Train LoRA (SCoFT): one line for each loss, during the run and after it.

The server sends the event "scoft.training" (comfy_scoft/comfyui/live_chart.py) with the whole run in a few points, at
most twice a second, so a page that was reloaded has everything with the next event. After a run, the same data comes
with the node's output, which ComfyUI keeps in its history. The widget is added with the first data and is never saved:
a workflow is the same with and without it. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { find, isOpen, ownerOf, SWITCHED, whole } from "./tabs.js";

const NODE = "SCoFT_TrainLora";
const EVENT = "scoft.training";
const OUTPUT = "scoft_training";
const WIDGET = "scoft_training";
const HELD_OUT = "validation";

/* Okabe and Ito's colors, as in the chart image: distinct for color-blind people, with a contrast of at least 3:1. */
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];
const WIDTH = 200, HEIGHT = 22, PAD = 3; // of a line, in its own units; it is stretched to the width of the node
const ROW = 25, CAPTION = 22, FRAME = 8, MARGIN = 10, NOTE = 32; // pixels
const SMOOTH = 0.05, FEW = 20; // share of the run in a running mean; curves with fewer points are not smoothed
const KEPT = 50; // maximum number of runs kept while the page is open
const LOOKED_AT = 64; // entries of ComfyUI's history that are searched for finished runs

const WORDS = {
    en: {
        of: "step {step} of {steps}", running: "", done: "done", stopped: "stopped", validation: "validation",
        title: "Training losses of {run}", lost: "{name}: from {first} to {last}, lowest {least}",
        saved: "Stopped at step {saved} and saved. Set resume to {resume} to go on.",
    },
    zh: {
        of: "第 {step} / {steps} 步", running: "", done: "已完成", stopped: "已停止", validation: "验证集",
        title: "{run} 的训练损失", lost: "{name}：从 {first} 到 {last}，最低 {least}",
        saved: "已在第 {saved} 步停止并保存。将“继续训练”设为 {resume} 即可继续。",
    },
    ko: {
        of: "{steps} 중 {step} 스텝", running: "", done: "완료", stopped: "중단됨", validation: "검증",
        title: "{run} 학습 손실", lost: "{name}: {first}에서 {last}, 최저 {least}",
        saved: "{saved} 스텝에서 중단하고 저장했습니다. ‘이어서 학습’을 {resume}(으)로 설정하면 계속됩니다.",
    },
    es: {
        of: "paso {step} de {steps}", running: "", done: "terminado", stopped: "detenido", validation: "validación",
        title: "Pérdidas del entrenamiento {run}", lost: "{name}: de {first} a {last}, mínimo {least}",
        saved: "Detenido en el paso {saved} y guardado. Pon «reanudar» en {resume} para continuar.",
    },
};

const CSS = `
.scoft-training { box-sizing: border-box; height: 100%; overflow: hidden; padding: 4px 8px; border-radius: 4px;
    background: var(--comfy-menu-bg, #171718); color: var(--input-text, #ddd); font: 11px/1.3 sans-serif; }
.scoft-training table { width: 100%; table-layout: fixed; border-collapse: collapse; }
.scoft-training caption { height: ${CAPTION}px; line-height: ${CAPTION}px; text-align: left; white-space: nowrap;
    overflow: hidden; text-overflow: ellipsis; }
.scoft-training p { height: ${NOTE}px; margin: 0; overflow: hidden; }
.scoft-training tr { height: ${ROW}px; }
.scoft-training th, .scoft-training td { padding: 0; vertical-align: middle; white-space: nowrap; overflow: hidden;
    text-overflow: ellipsis; }
.scoft-training th { width: 84px; font-weight: normal; text-align: left; }
.scoft-training td:last-child { width: 56px; text-align: right; font-variant-numeric: tabular-nums; }
.scoft-training svg { display: block; width: 100%; height: ${HEIGHT}px; }
.scoft-training polyline { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round;
    stroke-linecap: round; }
.scoft-training .each { stroke-width: 1; opacity: 0.4; }
.scoft-training .trend { stroke-width: 2; }
`;

const known = []; // { owner, node, data } of the newest run of each node; owner: see tabs.js
let asked = false; // whether the history was searched since the page opened

function words() {
    const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
    return WORDS[language.split("-")[0]] ?? WORDS.en;
}

function fill(text, values) {
    return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function number(value) {
    return Number(value).toPrecision(3);
}

/* --- drawing ----------------------------------------------------------------------------------------------------- */

function element(name, attributes = {}, text = "") {
    const svg = name === "svg" || name === "polyline";
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    return made;
}

/* Running mean over about a twentieth of the run, centered; shorter at the ends. */
function smoothed(values) {
    if (values.length < FEW) return values;
    const half = Math.max(1, Math.round((values.length * SMOOTH) / 2));
    return values.map((_, i) => {
        const near = values.slice(Math.max(0, i - half), i + half + 1);
        return near.reduce((sum, value) => sum + value, 0) / near.length;
    });
}

/* One curve on its own scale, over the finished steps. */
function line(curve, color, done, label) {
    const { steps, values } = curve;
    const least = Math.min(...values), range = Math.max(...values) - least;
    const x = (i) => PAD + ((WIDTH - 2 * PAD) * steps[i]) / Math.max(1, done);
    const y = (value) => (range ? PAD + ((HEIGHT - 2 * PAD) * (least + range - value)) / range : HEIGHT / 2);
    const points = (heights) => {
        const found = heights.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`);
        return (found.length > 1 ? found : [...found, ...found]).join(" "); // a single point is a dot
    };
    const drawing = element("svg", {
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label,
    });
    const dashed = curve.name === HELD_OUT ? { "stroke-dasharray": "5 3" } : {};
    const put = (kind, heights, more = {}) =>
        drawing.append(element("polyline", { class: kind, stroke: color, points: points(heights), ...more }));
    if (values.length >= FEW) put("each", values);
    put("trend", smoothed(values), dashed);
    return drawing;
}

function row(curve, color, done) {
    const say = words(), last = smoothed(curve.values).at(-1);
    const name = curve.name === HELD_OUT ? say.validation : curve.name;
    const [first, least] = [curve.values[0], Math.min(...curve.values)].map(number);
    const label = fill(say.lost, { name, first, last: number(last), least });
    const made = element("tr", { title: label }), cell = element("td");
    cell.append(line(curve, color, done, label));
    made.append(element("th", { scope: "row" }, name), cell, element("td", {}, number(last)));
    return made;
}

function draw(place, data) {
    const say = words(), table = element("table"), rest = data.curves.filter((curve) => curve.name !== HELD_OUT);
    const state = [data.run, fill(say.of, data), say[data.state]].filter(Boolean).join(" · ");
    table.append(element("caption", {}, state));
    for (const curve of data.curves) {
        const color = curve.name === HELD_OUT ? "currentColor" : COLORS[rest.indexOf(curve) % COLORS.length];
        table.append(row(curve, color, data.step));
    }
    place.setAttribute("aria-label", fill(say.title, data));
    Object.assign(place.dataset, { run: data.run, state: data.state, step: data.step });
    place.replaceChildren(table, ...(data.saved ? [element("p", {}, fill(say.saved, data))] : []));
}

/* --- the widget -------------------------------------------------------------------------------------------------- */

function height(data) {
    return CAPTION + ROW * data.curves.length + FRAME + 2 * MARGIN + (data.saved ? NOTE : 0);
}

function show(node, data) {
    if (!data?.curves?.length) return;
    let widget = node.widgets?.find((each) => each.name === WIDGET);
    if (!widget) {
        const place = element("div", { class: "scoft-training", role: "group" });
        const size = () => height(widget?.data ?? data);
        const options = { serialize: false, hideOnZoom: false, margin: MARGIN, getMinHeight: size, getMaxHeight: size };
        widget = node.addDOMWidget(WIDGET, "scoft-training", place, options);
        widget.serialize = false; // not in the saved workflow either
    }
    widget.data = data;
    const tall = `${height(data) - 2 * MARGIN}px`;
    Object.assign(widget.element.style, { minHeight: tall, maxHeight: tall }); // newer frontends would stretch it
    draw(widget.element, data);
    node.setDirtyCanvas?.(true, true);
}

function remember(owner, node, data) {
    const same = (each) => each.owner.tab === owner.tab && each.owner.id === owner.id;
    const before = known.findIndex((each) => same(each) && String(each.node) === String(node));
    if (before >= 0) known.splice(before, 1);
    known.push({ owner, node, data });
    if (known.length > KEPT) known.shift();
}

/* ComfyUI's canvas keeps showing the last preview of a run in place of the node's own image, the chart. */
function endPreview(id) {
    const node = find(id);
    if (node?.comfyClass !== NODE || !app.nodePreviewImages) return;
    delete app.nodePreviewImages[node.graph === whole() ? String(node.id) : `${node.graph.id}:${node.id}`];
    node.images = node.preview = undefined; // so that it looks again for the image to show
    node.setDirtyCanvas?.(true, true);
}

/* Draw the charts of the open graph. */
function redraw() {
    for (const { owner, node: id, data } of known) {
        const node = isOpen(owner) && find(id);
        if (node?.comfyClass === NODE) show(node, data);
    }
}

/* Load the runs that ended before the page opened: the newest of each node, unless an event came since then. */
async function lookBack() {
    if (asked) return;
    asked = true;
    try {
        const history = await (await api.fetchApi(`/history?max_items=${LOOKED_AT}`)).json();
        for (const { prompt, outputs } of Object.values(history).reverse()) {
            const workflow = prompt?.[3]?.extra_pnginfo?.workflow?.id;
            for (const [node, output] of Object.entries(outputs ?? {})) {
                const data = output?.[OUTPUT]?.[0];
                const newer = known.some((each) => each.owner.id === workflow && String(each.node) === node);
                if (workflow && data && !newer) remember({ id: workflow }, node, data);
            }
        }
        redraw();
    } catch (error) {
        console.warn("SCoFT: the history could not be read. Charts will appear with the next run.", error);
    }
}

app.registerExtension({
    name: "scoft.training",
    setup() {
        document.head.append(element("style", {}, CSS));
        api.addEventListener(EVENT, ({ detail: data }) => {
            const owner = ownerOf(data.prompt, data.workflow);
            remember(owner, data.node, data);
            if (isOpen(owner)) redraw();
        });
        api.addEventListener("executed", ({ detail }) => {
            const data = detail?.output?.[OUTPUT]?.[0]; // also of a cached node, which sends no other event
            if (!data) return;
            const owner = ownerOf(detail.prompt_id), id = detail.display_node ?? detail.node;
            remember(owner, id, data);
            if (!isOpen(owner)) return;
            redraw();
            endPreview(id);
        });
    },
    afterConfigureGraph() {
        setTimeout(redraw, SWITCHED);
        if (whole()?.nodes?.some((node) => node.comfyClass === NODE || node.subgraph)) lookBack();
    },
});
