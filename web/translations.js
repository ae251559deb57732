/* Translations of this pack from locales/, where ComfyUI's frontend alone would show English.

The frontend reads the names and tooltips of nodes from there. But some versions, that of ComfyUI 0.3.75 among them, drop
the translations of all packs when they load a language of their own (Comfy-Org/ComfyUI_frontend, pull request 7214):
here they are added again. Old versions parse tooltips as messages, in which { } @ | are special, new ones do not:
tooltips with these characters are written into the nodes' definitions here. And the frontend does not translate the
choices of combos: here each gets its label; the choice itself, which workflows store, does not change. If the
frontend's translator cannot be reached, nothing is changed. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const PREFIX = "SCoFT_";
const MOST = 12; // maximum number of choices of a combo with labels

function translator() {
    const page = document.querySelector("#vue-app")?.__vue_app__;
    return page?._context?.provides?.[page.__VUE_I18N_SYMBOL__]?.global;
}

/* Give the translations of all packs to the translator, now and after each language that it loads. */
async function keepTranslations(i18n) {
    const messages = await (await api.fetchApi("/i18n")).json();
    const add = (language) => messages[language] && i18n.mergeLocaleMessage(language, messages[language]);
    const set = i18n.setLocaleMessage;
    i18n.setLocaleMessage = (language, own) => {
        set(language, own);
        add(language);
    };
    Object.keys(messages).forEach(add);
}

const labelKey = (option) => `SCoFT.options.${option}`;

function label(option) {
    const i18n = translator();
    return i18n?.te(labelKey(option)) ? i18n.t(labelKey(option)) : option ?? "";
}

/* Whether a combo gets labels. A long one does not: its menu would lose its search field. */
function hasLabels({ type, options }) {
    const values = options?.values;
    if (type !== "combo" || !Array.isArray(values) || values.length > MOST) return false;
    return values.some((value) => translator()?.te(labelKey(value)));
}

app.registerExtension({
    name: "SCoFT.Translations",

    /* Before the nodes are registered, since they get their names then. */
    async init() {
        const i18n = translator();
        if (i18n?.setLocaleMessage && i18n.mergeLocaleMessage) await keepTranslations(i18n);
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
