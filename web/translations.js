/* This pack's words in other languages, from locales/, where ComfyUI's page alone would leave them in English.

The page takes the names and tooltips of nodes from there by itself. But some versions of it, that of ComfyUI 0.3.75
among them, drop the words of all packs again when they load a language of their own (Comfy-Org/ComfyUI_frontend, pull
request 7214): here they are put back. Old versions read tooltips as messages, in which { } @ | have a meaning, new
ones as they are: tooltips with such signs are put into the nodes' definitions here. And the page has no words for the
choices of combos: here each gets the label that the language has for it; the choice itself, which workflows hold,
stays as it is. Where the page's translator cannot be reached, nothing is changed. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const PREFIX = "SCoFT_";
const MOST = 12; // choices of a combo

function translator() {
    const page = document.querySelector("#vue-app")?.__vue_app__;
    return page?._context?.provides?.[page.__VUE_I18N_SYMBOL__]?.global;
}

/* Hands all packs' words to the translator, now and after each language that it loads. */
async function keepWords(i18n) {
    const words = await (await api.fetchApi("/i18n")).json();
    const add = (language) => words[language] && i18n.mergeLocaleMessage(language, words[language]);
    const set = i18n.setLocaleMessage;
    i18n.setLocaleMessage = (language, messages) => {
        set(language, messages);
        add(language);
    };
    Object.keys(words).forEach(add);
}

const labelKey = (option) => `SCoFT.options.${option}`;

function label(option) {
    const i18n = translator();
    return i18n?.te(labelKey(option)) ? i18n.t(labelKey(option)) : option ?? "";
}

/* Whether a combo gets labels: a long one does not, for its menu would then have no field to search in. */
function hasLabels({ type, options }) {
    const values = options?.values;
    if (type !== "combo" || !Array.isArray(values) || values.length > MOST) return false;
    return values.some((value) => translator()?.te(labelKey(value)));
}

app.registerExtension({
    name: "SCoFT.Translations",

    /* Before the nodes are registered: it is then that they get their names. */
    async init() {
        const i18n = translator();
        if (i18n?.setLocaleMessage && i18n.mergeLocaleMessage) await keepWords(i18n);
    },

    addCustomNodeDefs(definitions) {
        for (const [name, { input }] of Object.entries(definitions)) {
            if (!name.startsWith(PREFIX)) continue;
            for (const [key, [, options]] of Object.entries({ ...input?.required, ...input?.optional })) {
                const message = `SCoFT.tooltips.${name}.${key}`;
                if (options && translator()?.te(message)) options.tooltip = translator().t(message);
            }
        }
    },

    nodeCreated(node) {
        if (!node.comfyClass?.startsWith(PREFIX)) return;
        for (const widget of node.widgets ?? []) {
            if (hasLabels(widget)) widget.options.getOptionLabel ??= label;
        }
    },
});
