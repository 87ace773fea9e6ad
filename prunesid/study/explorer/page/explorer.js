"use strict";
/* The explorer of a study. Its data are scripts below data/ that call `explorer.put` (docs/explorer.md);
   the whole view is in the address after '#', so that a link shows it again. */

const MOST = 6; // arms side by side
const PAGE = 50; // questions that the list grows by
const BINS = 8;
const WHOLE = "whole"; // the subject that stands for all tokens
const ALL = "all";
const INK = "#1b1f24";
const COLORS = ["#0b63ce", "#d9730d", "#1a8f5a", "#b03a9b", "#8a6d00", "#3f8f9f"];
const MERGED = "#e65c00";
const OUTCOMES = {
  any: "anything",
  flip: "differently: one right, one wrong",
  lost: "right, wrong",
  won: "wrong, right",
  text: "in other words",
  right: "both right",
  wrong: "both wrong",
};
const SORTS = { study: "as in the study", disagree: "most arms disagree", phi: "information score", least: "score, high first" };
const byId = (id) => document.getElementById(id);

/* Loading */

const loading = new Map();
const arrived = new Map();
window.explorer = { put: (name, value) => arrived.set(name, value) };

/** What the script `data/<name>.js` hands over; each is loaded once. */
function load(name) {
  if (!loading.has(name)) {
    loading.set(name, new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      script.onload = () => { script.remove(); resolve(arrived.get(name)); arrived.delete(name); };
      script.onerror = () => reject(new Error(`data/${name}.js is missing or cannot be read`));
      document.head.append(script);
    }));
  }
  return loading.get(name);
}

/** A function that gives the promise of `make` for a key, made once. */
function once(make) {
  const known = new Map();
  return (...key) => {
    const name = key.join("\n");
    if (!known.has(name)) known.set(name, make(...key));
    return known.get(name);
  };
}

async function inflate(text) {
  const raw = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Response(stream).arrayBuffer();
}

const KINDS = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array };
const numbersOf = async (packed) => new KINDS[packed.bytes](await inflate(packed.of));

/** A column as {values, of}: row n holds values[of[n]]. */
async function column(packed) {
  return { values: packed.values, of: await numbersOf(packed) };
}
const at = (col, row) => col.values[col.of[row]];

const benchmarkOf = once(async (name) => {
  const found = await load(`${name}/questions`);
  const columns = ["ids", "question", "target", "category", "weight", "views"];
  const read = await Promise.all(columns.map((each) => column(found[each])));
  const own = Object.fromEntries(columns.map((each, n) => [each, read[n]]));
  own.image = await numbersOf(found.image);
  own.disagree = await numbersOf(found.disagree);
  own.images = found.images;
  own.phi = found.phi;
  own.views.values = own.views.values.map((text) => JSON.parse(text));
  own.meta = study.benchmarks.find((each) => each.name === name);
  own.first = new Int32Array(own.images.length).fill(-1); // the first question of each image
  own.place = new Int32Array(own.image.length); // of a question among those on its image
  own.onImage = own.images.map(() => []);
  own.image.forEach((image, q) => {
    if (own.first[image] < 0) own.first[image] = q;
    own.place[q] = own.onImage[image].push(q) - 1;
  });
  own.partner = pairs(own);
  return own;
});

/** MME's pairs: for the second question of each pair the first, -1 for others. */
function pairs(own) {
  const seen = new Map();
  return Int32Array.from(own.image, (image, q) => {
    const key = `${image}/${own.category.of[q]}`;
    const before = seen.has(key) ? seen.get(key) : -1;
    seen.set(key, before < 0 ? q : -1);
    return before;
  });
}

const answersOf = once(async (benchmark, arm) => {
  const found = await load(`${benchmark}/arms/${arm}`);
  const score = await column(found.score);
  return {
    answer: await column(found.answer),
    tokens: await column(found.tokens),
    score: Float64Array.from(score.of, (n) => score.values[n]),
    layers: found.layers ? await column(found.layers) : null,
    left: found.left,
  };
});

const groupsOf = once(async (name) => numbersOf(await load(name)));
const keptOf = once(async (benchmark, arm, block) => {
  const found = await load(`${benchmark}/kept/${arm}-${block}`);
  const bits = async (packed) => new Uint8Array(await inflate(packed));
  return {
    width: found.width,
    mask: await bits(found.mask),
    merged: found.merged ? await bits(found.merged) : null,
    groups: found.groups ? await groupsOf(found.groups) : null,
    members: found.members ? await bits(found.members) : null,
    centers: found.centers ? await numbersOf(found.centers) : null,
    ends: found.ends ? await numbersOf(found.ends) : null,
    of: found.of ? await numbersOf(found.of) : null,
  };
});

const leftOf = once(async (benchmark, arm, block) => {
  const found = await load(`${benchmark}/left/${arm}-${block}`);
  return { width: found.width, values: await numbersOf(found) };
});

const blockOf = (own, q) => Math.floor(own.image[q] / study.block);

/** The place of a question among those on the images of its block. */
function inBlock(own, q) {
  let before = 0;
  for (let i = blockOf(own, q) * study.block; i < own.image[q]; i++) before += own.onImage[i].length;
  return before + own.place[q];
}

/** How many layers of the language model a patch's token enters, as a function of its number. */
async function leftOn(own, arm, q) {
  const { width, values } = await leftOf(own.meta.name, arm, blockOf(own, q));
  const start = inBlock(own, q) * width;
  return (patch) => values[start + patch];
}

/**
 * What an arm keeps on a question: {mask, merged, group} as functions of the patch's number, and, where merged tokens
 * share patches, these tokens: the patch that each stands for, or -1, and a function that tells whose members it has.
 */
async function keptOn(own, arm, q) {
  const kept = await keptOf(own.meta.name, arm, blockOf(own, q));
  const set = kept.of ? kept.of[inBlock(own, q)] : own.image[q] % study.block;
  const bytes = Math.ceil(kept.width / 8);
  const bit = (from, row = set) => (patch) => (from[row * bytes + (patch >> 3)] >> (patch & 7)) & 1;
  const first = set && kept.ends ? kept.ends[set - 1] : 0;
  const token = (_, n) => ({ center: kept.centers[first + n] - 1, has: bit(kept.members, first + n) });
  return {
    mask: bit(kept.mask),
    merged: kept.merged ? bit(kept.merged) : null,
    group: kept.groups ? (patch) => kept.groups[set * kept.width + patch] - 1 : null,
    tokens: kept.members ? Array.from({ length: kept.ends[set] - first }, token) : null,
  };
}

/* The study and the view */

let study;
let view;
const DEFAULTS = { x: WHOLE, y: "", o: "any", f: "", lo: "", hi: "", w: "", s: "study", l: "" };

const lineOf = (key) => study.lines.find((line) => line.key === key);
const color = (subject) => (subject === WHOLE ? INK : COLORS[view.arms.indexOf(subject)] || "#888");
const labelOf = (subject) => (subject === WHOLE ? "All tokens" : lineOf(subject).label);

/** The cell of a subject at the budget of the view, or the nearest that it ran with. */
function cellOf(subject) {
  if (subject === WHOLE) return study.all;
  const cells = lineOf(subject).cells;
  const far = (cell) => (cell.budget === null ? 0 : Math.abs(cell.budget - view.n));
  return cells.reduce((best, cell) => (far(cell) < far(best) ? cell : best));
}

const shownBenchmarks = () => (view.b === ALL ? study.benchmarks.map((b) => b.name) : [view.b]);
const ran = (subject, benchmark) => cellOf(subject).benchmarks.includes(benchmark);
const subjects = () => [WHOLE, ...view.arms];

function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const known = new Set(study.lines.map((line) => line.key));
  const arms = given.getAll("a").filter((key) => known.has(key)).slice(0, MOST);
  const found = { ...DEFAULTS, arms: [...new Set(given.has("a") || given.has("b") ? arms : usual())] };
  for (const name of Object.keys(DEFAULTS)) if (given.has(name)) found[name] = given.get(name);
  found.b = given.get("b");
  if (found.b !== ALL && !study.benchmarks.some((b) => b.name === found.b)) found.b = study.benchmarks[0].name;
  const cells = found.arms.flatMap((key) => lineOf(key).cells.map((cell) => cell.budget));
  const first = study.budgets.find((budget) => cells.includes(budget)) || study.budgets[0];
  found.n = study.budgets.includes(Number(given.get("n"))) ? Number(given.get("n")) : first;
  found.q = given.get("q") || "";
  if (!(found.o in OUTCOMES)) found.o = DEFAULTS.o;
  if (!(found.s in SORTS)) found.s = DEFAULTS.s;
  if (!/^[1-9][0-9]*$/.test(found.l)) found.l = DEFAULTS.l;
  for (const side of ["x", "y"]) if (![WHOLE, ...found.arms].includes(found[side])) found[side] = DEFAULTS[side];
  return found;
}

/** Arms to begin with: a reference of the first ablation and two others. */
function usual() {
  const first = study.lines.filter((line) => line.ablation === study.lines[0].ablation);
  const chosen = [...first.filter((line) => line.reference), ...first.filter((line) => !line.reference).reverse()];
  return chosen.slice(0, 3).map((line) => line.key);
}

function address() {
  const found = new URLSearchParams({ b: view.b, n: view.n });
  for (const key of view.arms) found.append("a", key);
  for (const [name, value] of Object.entries(DEFAULTS)) if (view[name] !== value) found.set(name, view[name]);
  if (view.q) found.set("q", view.q);
  return `#${found}`;
}

/** The other side of a comparison: what is chosen, or the first arm. */
const other = () => view.y || view.arms[0] || WHOLE;

/* Questions that the filter leaves */

/** Loads what the numbers need; [{own, data: {subject: answers per seed}}] for each benchmark. */
async function gather() {
  return Promise.all(shownBenchmarks().map(async (name) => {
    const own = await benchmarkOf(name);
    const data = {};
    await Promise.all(subjects().filter((s) => ran(s, name)).map(async (subject) => {
      data[subject] = await Promise.all(cellOf(subject).arms.map((arm) => answersOf(name, arm)));
    }));
    return { own, data };
  }));
}

const right = (answers, q) => answers[0].score[q] > 0.5;

/** Whether an arm is right where all tokens are wrong, or the other way round. */
function isFlip({ data }, q) {
  const whole = right(data[WHOLE], q);
  return view.arms.some((arm) => data[arm] && right(data[arm], q) !== whole);
}

function passes({ own, data }, q) {
  if (view.f && at(own.category, q) !== view.f) return false;
  const phi = own.phi[own.image[q]];
  if (view.lo !== "" && !(phi !== null && phi >= Number(view.lo))) return false;
  if (view.hi !== "" && !(phi !== null && phi <= Number(view.hi))) return false;
  if (view.o !== "any") {
    const first = data[view.x], second = data[other()];
    if (!first || !second) return false;
    const a = right(first, q), b = right(second, q);
    const holds = {
      flip: a !== b, lost: a && !b, won: !a && b, right: a && b, wrong: !a && !b,
      text: at(first[0].answer, q) !== at(second[0].answer, q),
    };
    if (!holds[view.o]) return false;
  }
  if (!view.w) return true;
  const wanted = view.w.toLowerCase();
  const said = Object.values(data).map((each) => at(each[0].answer, q));
  return [at(own.question, q), at(own.target, q), ...said].some((text) => String(text).toLowerCase().includes(wanted));
}

function chosenQuestions(gathered) {
  const found = [];
  gathered.forEach((part, b) => {
    for (let q = 0; q < part.own.image.length; q++) if (passes(part, q)) found.push({ b, q });
  });
  const phi = ({ b, q }) => gathered[b].own.phi[gathered[b].own.image[q]] ?? Infinity;
  const order = {
    disagree: (one, two) => gathered[two.b].own.disagree[two.q] - gathered[one.b].own.disagree[one.q],
    phi: (one, two) => phi(one) - phi(two),
    least: (one, two) => phi(two) - phi(one),
  }[view.s];
  return order ? found.sort(order) : found;
}

/* Numbers: the study's statistics on the questions that are left */

/** What a question adds to the sums of its benchmark's statistic, as in study/analysis/metrics.py. */
function contribution(own, answers, q, included, add) {
  const kind = own.meta.statistic, score = answers.score[q];
  if (kind === "mean") { add(0, score); add(1, 1); }
  else if (kind === "weighted") { const weight = at(own.weight, q); add(0, weight * score); add(1, weight); }
  else if (kind === "f1") {
    const said = String(at(answers.answer, q)).toLowerCase().trim();
    const target = String(at(own.target, q)).toLowerCase().trim();
    if (said === "yes" && target === "yes") add(0, 1);
    if (said === "yes" && target !== "yes") add(1, 1);
    if (said === "no" && target === "yes") add(2, 1);
  } else {
    const before = own.partner[q];
    if (before < 0 || !included[before]) return;
    const both = answers.score[before] + score, from = 3 * own.category.of[q];
    add(from, both); add(from + 1, both === 2 ? 1 : 0); add(from + 2, 1);
  }
}

const widthOf = (own) => ({ mean: 2, weighted: 2, f1: 3 })[own.meta.statistic] || 3 * own.category.values.length;

function valueOf(own, sums, from = 0) {
  const kind = own.meta.statistic, scale = own.meta.scale;
  if (kind === "mean" || kind === "weighted") return sums[from + 1] > 0 ? (scale * sums[from]) / sums[from + 1] : NaN;
  if (kind === "f1") return sums[from] > 0 ? (scale * 2 * sums[from]) / (2 * sums[from] + sums[from + 1] + sums[from + 2]) : 0;
  let value = 0, known = false;
  for (let c = 0; c < own.category.values.length; c++) {
    const [hits, both, pairs] = sums.slice(from + 3 * c, from + 3 * c + 3);
    if (pairs > 0) { value += (100 * hits) / (2 * pairs) + (100 * both) / pairs; known = true; }
  }
  return known ? scale * value : NaN;
}

/** Numbers from 0 to 1 that are the same for every view with this seed. */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Values of each subject on one benchmark's questions: the estimate, and one per resample of whole images. */
function measured(part, questions, resamples) {
  const { own, data } = part, width = widthOf(own);
  const included = new Uint8Array(own.image.length);
  for (const q of questions) included[q] = 1;
  const number = new Map();
  for (const q of questions) if (!number.has(own.image[q])) number.set(own.image[q], number.size);
  const images = number.size;
  const tables = [];
  for (const [subject, seeds] of Object.entries(data)) {
    for (const answers of seeds) {
      const sums = new Float64Array(images * width), total = new Float64Array(width);
      let correct = 0;
      for (const q of questions) {
        const from = number.get(own.image[q]) * width;
        contribution(own, answers, q, included, (place, value) => { sums[from + place] += value; total[place] += value; });
        correct += answers.score[q];
      }
      tables.push({ subject, sums, value: valueOf(own, total), accuracy: (100 * correct) / questions.length });
    }
  }
  const drawn = Object.fromEntries(Object.keys(data).map((s) => [s, new Float64Array(resamples)]));
  const next = random(1), picks = new Int32Array(images), total = new Float64Array(width);
  for (let r = 0; r < resamples; r++) {
    for (let i = 0; i < images; i++) picks[i] = Math.floor(next() * images) * width;
    for (const { subject, sums } of tables) {
      total.fill(0);
      for (let i = 0; i < images; i++) for (let s = 0; s < width; s++) total[s] += sums[picks[i] + s];
      drawn[subject][r] += valueOf(own, total) / data[subject].length;
    }
  }
  const mean = (subject, what) => {
    const seeds = tables.filter((table) => table.subject === subject);
    return seeds.reduce((sum, table) => sum + table[what], 0) / seeds.length;
  };
  return { own, images, questions: questions.length, drawn, data, value: (s) => mean(s, "value"), accuracy: (s) => mean(s, "accuracy") };
}

function quantile(values, share) {
  const sorted = Float64Array.from(values.filter((v) => !Number.isNaN(v))).sort();
  if (!sorted.length) return NaN;
  const place = (sorted.length - 1) * share, low = Math.floor(place);
  return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

/** Per subject: value, difference from `view.x` with its interval, accuracy, flips. */
function summarize(gathered, questions) {
  const byBenchmark = gathered.map((part, b) => ({ part, own: questions.filter((each) => each.b === b).map(({ q }) => q) }));
  const parts = byBenchmark.filter(({ own }) => own.length);
  const work = parts.reduce((sum, { part, own }) => sum + own.length * widthOf(part.own), 0) * (1 + view.arms.length);
  const resamples = Math.max(300, Math.min(2000, Math.round(6e7 / Math.max(1, work))));
  const found = parts.map(({ part, own }) => measured(part, own, resamples));
  const relative = view.b === ALL;
  const average = (subject, pick) => {
    const mine = found.filter((each) => each.data[subject]);
    if (!mine.length) return NaN;
    const sum = mine.reduce((total, each) => total + (relative ? (100 * pick(each, subject)) / pick(each, WHOLE) : pick(each, subject)), 0);
    return sum / mine.length;
  };
  const tail = (1 - study.confidence) / 2;
  const lines = subjects().map((subject) => {
    const value = average(subject, (each, s) => each.value(s));
    const line = { subject, value, questions: 0, lost: 0, won: 0, accuracy: 0 };
    for (const { part, own } of parts) {
      const mine = part.data[subject], rival = part.data[view.x];
      if (!mine) continue;
      line.questions += own.length;
      for (const q of own) {
        line.accuracy += mine.reduce((sum, seed) => sum + seed.score[q], 0) / mine.length;
        if (!rival) continue;
        const a = right(rival, q), b = right(mine, q);
        line.lost += a && !b;
        line.won += !a && b;
      }
    }
    line.accuracy = (100 * line.accuracy) / line.questions;
    if (subject !== view.x) {
      // On the benchmarks that both ran on; whatever a resample draws, it draws for both.
      const both = found.filter((each) => each.data[subject] && each.data[view.x]);
      const minus = (pick) => {
        const sum = both.reduce((total, each) => {
          const unit = relative ? 100 / pick(each, WHOLE) : 1;
          return total + unit * (pick(each, subject) - pick(each, view.x));
        }, 0);
        return both.length ? sum / both.length : NaN;
      };
      line.diff = minus((each, s) => each.value(s));
      const drawn = Array.from({ length: resamples }, (_, r) => minus((each, s) => each.drawn[s][r]));
      line.low = quantile(drawn, tail);
      line.high = quantile(drawn, 1 - tail);
    }
    return line;
  });
  return { lines, images: found.reduce((sum, each) => sum + each.images, 0) };
}

/* Drawing */

/** An element with properties and children. */
function make(tag, given = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "style") for (const [key, each] of Object.entries(value)) found.style.setProperty(key, each);
    else if (name.includes("-")) found.setAttribute(name, value);
    else found[name] = value;
  }
  found.append(...children.filter((child) => child !== null && child !== undefined));
  return found;
}

function options(select, choices, chosen) {
  select.replaceChildren(...choices.map(([value, label]) => make("option", { value, textContent: label })));
  select.value = chosen;
}

const shown = (value, digits) => (Number.isNaN(value) || value === undefined ? "–" : value.toFixed(digits));
const signed = (value, digits) => (Number.isNaN(value) ? "–" : `${value > 0 ? "+" : ""}${value.toFixed(digits)}`.replace("-", "−"));
const tokensText = (cell) => (cell.budget === null ? "" : `${cell.budget} tokens`);

function drawChoice() {
  options(byId("benchmark"), [[ALL, "all benchmarks"], ...study.benchmarks.map((b) => [b.name, b.title])], view.b);
  byId("budget").max = study.budgets.length - 1;
  byId("budget").value = study.budgets.indexOf(view.n);
  byId("budget").disabled = study.budgets.length < 2;
  byId("tokens").textContent = `${view.n} tokens`;
  const groups = new Map();
  for (const line of study.lines) {
    if (!groups.has(line.ablation)) groups.set(line.ablation, make("optgroup", { label: line.ablation }));
    groups.get(line.ablation).append(make("option", { value: line.key, textContent: line.label, disabled: view.arms.includes(line.key) }));
  }
  const full = view.arms.length >= MOST;
  byId("add").replaceChildren(make("option", { value: "", textContent: full ? `${MOST} are shown` : "choose…" }), ...groups.values());
  byId("add").disabled = full;
  byId("chosen").replaceChildren(...view.arms.map((key) => {
    const line = lineOf(key), cell = cellOf(key);
    const away = make("button", { type: "button", textContent: "×", title: "Remove", "aria-label": `Remove ${line.label}` });
    away.onclick = () => change({ arms: view.arms.filter((each) => each !== key) });
    const note = cell.budget !== null && cell.budget !== view.n ? `${cell.budget} tokens, the nearest; ` : "";
    return make("span", { className: "arm", style: { "--own": color(key) } }, line.label, make("small", { textContent: note + line.ablation }), away);
  }));
  const sides = subjects().map((subject) => [subject, labelOf(subject)]);
  options(byId("x"), sides, view.x);
  options(byId("y"), sides, other());
  options(byId("outcome"), Object.entries(OUTCOMES), view.o);
  options(byId("sort"), Object.entries(SORTS), view.s);
  for (const [id, name] of [["low", "lo"], ["high", "hi"], ["text", "w"]]) if (document.activeElement !== byId(id)) byId(id).value = view[name];
}

function drawFamilies(gathered) {
  const names = new Set(gathered.flatMap(({ own }) => own.category.values).filter((name) => name !== ""));
  options(byId("family"), [["", "any"], ...[...names].sort().map((name) => [name, name])], names.has(view.f) ? view.f : "");
  byId("family").parentElement.hidden = names.size < 2 && !view.f;
}

function drawNumbers(gathered, questions) {
  const { lines, images } = summarize(gathered, questions);
  const total = gathered.reduce((sum, { own }) => sum + own.image.length, 0);
  const one = gathered[0].own.meta, relative = view.b === ALL;
  const unit = relative ? "average, % of all tokens" : `${one.label}, ${one.unit}`;
  const digits = relative ? 1 : one.digits;
  const beside = relative || !["mean"].includes(one.statistic);
  const times = subjects().map((subject) => study.arms[cellOf(subject).arms[0]].ms);
  const macs = (subject) => (relative ? null : one.macs[cellOf(subject).arms[0]]);
  const withMacs = !relative && subjects().some((subject) => ran(subject, one.name) && macs(subject));
  const head = ["", unit, ...(beside ? ["right answers, %"] : []), `minus ${labelOf(view.x)}`, "lost", "won",
    ...(withMacs ? ["multiply-adds, %"] : []), ...(times.some(Boolean) ? ["ms per request"] : [])];
  const rows = lines.map((line, n) => {
    const cell = cellOf(line.subject), none = !line.questions;
    const label = `${labelOf(line.subject)}${cell.budget === null ? "" : `, ${tokensText(cell)}`}${cell.arms.length > 1 ? `, mean of ${cell.arms.length} seeds` : ""}`;
    const interval = line.diff === undefined ? "" : `${signed(line.diff, digits)} [${signed(line.low, digits)}, ${signed(line.high, digits)}]`;
    const compared = line.subject !== view.x && !none;
    const cells = [
      none ? (questions.length ? "not run here" : "–") : shown(line.value, digits), ...(beside ? [shown(line.accuracy, 1)] : []), compared ? interval : "",
      compared ? line.lost : "", compared ? line.won : "",
      ...(withMacs ? [macs(line.subject) ? ((100 * macs(line.subject)) / macs(WHOLE)).toFixed(0) : "–"] : []),
      ...(times.some(Boolean) ? [times[n] ? times[n][0].toFixed(1) : "–"] : []),
    ];
    const row = make("tr", { style: { "--own": color(line.subject) } }, make("th", { scope: "row", textContent: label }), ...cells.map((text) => make("td", { textContent: text })));
    row.dataset.subject = line.subject;
    row.dataset.value = line.value;
    row.dataset.diff = line.diff ?? "";
    row.dataset.low = line.low ?? "";
    row.dataset.high = line.high ?? "";
    return row;
  });
  const left = questions.length === total ? `${total} questions on ${images} images` : `${questions.length} of ${total} questions, on ${images} images`;
  const note = `${Math.round(100 * study.confidence)} % intervals resample whole images. Lost: ${labelOf(view.x)} right, this arm wrong; won: the other way round.`;
  byId("numbers").replaceChildren(
    make("p", {}, make("b", { id: "left", textContent: left }), " ", make("span", { className: "soft", textContent: note })),
    make("table", {}, make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col", textContent: text })))), make("tbody", {}, ...rows)));
}

const nameOf = (part, q) => `${part.own.meta.name}/${at(part.own.ids, q)}`;

function marks(part, q) {
  return make("span", { className: "marks" }, ...subjects().map((subject) => {
    const data = part.data[subject], good = data && right(data, q);
    const said = data ? `${labelOf(subject)}: ${at(data[0].answer, q)}, ${good ? "right" : "wrong"}` : `${labelOf(subject)}: not run here`;
    return make("i", { className: data ? (good ? "right" : "wrong") : "none", title: said });
  }));
}

function questionButton(now, b, q) {
  const part = now.gathered[b], own = part.own;
  const about = [view.b === ALL ? own.meta.title : "", at(own.category, q), `${own.disagree[q]} arms disagree`].filter(Boolean).join(" · ");
  const found = make("button", { type: "button", className: "question" }, marks(part, q), firstLine(at(own.question, q)), " ", make("small", { textContent: `→ ${at(own.target, q)} · ${about}` }));
  found.dataset.q = nameOf(part, q);
  found.onclick = () => change({ q: nameOf(part, q) });
  if (view.q === nameOf(part, q)) found.setAttribute("aria-current", "true");
  return found;
}

const firstLine = (text) => { const line = String(text).trim().split("\n")[0]; return line.length > 160 ? `${line.slice(0, 160)}…` : line; };

function drawList(now) {
  const list = byId("list"), before = list.scrollTop;
  const place = now.questions.findIndex(({ b, q }) => view.q === nameOf(now.gathered[b], q));
  now.listed = Math.max(now.listed || PAGE, place + 10);
  const more = now.questions.length > now.listed ? make("button", { type: "button", className: "more", textContent: `${now.questions.length - now.listed} more` }) : null;
  if (more) more.onclick = () => { now.listed += PAGE; drawList(now); };
  const items = now.questions.slice(0, now.listed).map(({ b, q }) => questionButton(now, b, q));
  list.replaceChildren(...(items.length ? items : [make("p", { className: "more", textContent: "The filter leaves no question." })]), ...(more ? [more] : []));
  list.scrollTop = before;
  const current = list.querySelector("[aria-current]");
  if (current && (current.offsetTop < list.scrollTop + list.offsetTop || current.offsetTop + current.offsetHeight > list.offsetTop + list.scrollTop + list.clientHeight)) {
    list.scrollTop = current.offsetTop - list.offsetTop - list.clientHeight / 3;
  }
}

/** A color per group, far apart for neighbors. */
const groupColor = (group) => `hsl(${((group * 7) % 24) * 15} 85% ${group % 48 < 24 ? 45 : 30}%)`;
const groupTint = (group) => `hsl(${((group * 7) % 24) * 15} 85% ${group % 48 < 24 ? 45 : 30}% / 0.22)`;

const pictureOf = once((path) => new Promise((resolve, reject) => {
  const image = new Image();
  image.onload = () => resolve(image);
  image.onerror = () => reject(new Error(`${path} is missing or cannot be read`));
  image.src = path;
}));

/** Every patch of a view: its number and its row and column in the grid. */
function patches(tiles) {
  const found = [];
  for (const [first, top, left, rows, columns] of tiles) {
    for (let p = 0; p < rows * columns; p++) found.push({ patch: first + p, row: top + Math.floor(p / columns), column: left + (p % columns) });
  }
  return found;
}

/** Means over cells, which stand for no patch. */
const cellsOf = (kept) => (kept.tokens || []).filter((each) => each.center < 0);

/** Draws a view: the picture, and what is kept in full, the rest faded; patches for which `lit` holds are colored. */
function paint(canvas, image, [, , [rows, columns], [top, left, bottom, right], tiles], kept, lit) {
  const across = 448, size = across / columns;
  canvas.width = across;
  canvas.height = Math.round(size * rows);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#7a7468";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(image, left * size, top * size, (right - left) * size, (bottom - top) * size);
  if (!kept) return;
  const inside = ({ row, column }) => row >= top && row < bottom && column >= left && column < right;
  const all = patches(tiles).filter(inside);
  const cells = cellsOf(kept);
  for (const { patch, row, column } of all) {
    if (cells.length || kept.mask(patch) || (kept.merged && kept.merged(patch))) continue;
    pen.fillStyle = "rgb(255 255 255 / 0.72)";
    pen.fillRect(column * size, row * size, size + 0.5, size + 0.5);
    if (!kept.group || kept.group(patch) < 0) continue;
    pen.fillStyle = groupTint(kept.group(patch));
    pen.fillRect(column * size, row * size, size + 0.5, size + 0.5);
  }
  pen.lineWidth = 2.5;
  for (const { patch, row, column } of all) {
    const merged = kept.merged && kept.merged(patch), own = kept.group ? kept.group(patch) : -1;
    if (!kept.mask(patch) && !merged) continue;
    pen.strokeStyle = merged ? MERGED : own < 0 ? "#111" : groupColor(own);
    pen.strokeRect(column * size + 1, row * size + 1, size - 2, size - 2);
  }
  pen.strokeStyle = MERGED;
  for (const cell of cells) {
    const own = all.filter((each) => cell.has(each.patch)), ends = (of) => [Math.min(...own.map(of)), Math.max(...own.map(of)) + 1];
    if (!own.length) continue;
    const [above, below] = ends((each) => each.row), [before, after] = ends((each) => each.column);
    pen.strokeRect(before * size, above * size, (after - before) * size, (below - above) * size);
  }
  if (!lit) return;
  pen.fillStyle = "rgb(11 99 206 / 0.42)";
  for (const { patch, row, column } of all) if (lit(patch)) pen.fillRect(column * size, row * size, size, size);
}

const counted = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

/** What belongs to a patch among all: its state and company in words, and whether another one lights up with it. */
function about(patch, all, kept) {
  const merged = kept.merged && kept.merged(patch), group = kept.group ? kept.group(patch) : -1;
  const state = merged ? "center of a merged token" : kept.left ? until(kept.left(patch)) : kept.mask(patch) ? "kept" : "not kept";
  if (kept.tokens) {
    const own = kept.tokens.filter((each) => each.center === patch), into = kept.tokens.filter((each) => each.has(patch));
    const members = (each) => own.some((token) => token.has(each));
    if (own.length) return { said: [state, `made of ${all.filter(members).length} patches`], lit: members };
    const standing = into.filter((each) => each.center >= 0);
    if (standing.length) return { said: [state, `goes into ${counted(standing.length, "merged token")}`], lit: (each) => standing.some((token) => token.center === each) };
    if (into.length) return { said: [`in the mean of ${counted(into.length, "cell")}`], lit: (each) => into.some((token) => token.has(each)) };
  }
  if (group < 0) return { said: [state] };
  const lit = (each) => kept.group(each) === group, members = all.filter(lit), whole = members.filter((each) => kept.mask(each)).length;
  return { said: [state, kept.merged ? `one of the ${members.length} patches of merged token ${group + 1}` : `group ${group + 1}: keeps ${whole} of ${members.length} patches`], lit };
}

function hover(canvas, image, one, kept) {
  const tip = byId("tip"), [, , [rows, columns], , tiles] = one;
  const all = new Map(patches(tiles).map((each) => [each.row * columns + each.column, each.patch]));
  let last;
  canvas.onmousemove = (event) => {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows), column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const patch = all.get(row * columns + column);
    tip.hidden = patch === undefined;
    if (patch === undefined) return;
    const { said, lit } = about(patch, [...all.values()], kept);
    tip.textContent = `row ${row + 1}, column ${column + 1}: ${said.join("; ")}`;
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - 270)}px`;
    tip.style.top = `${event.clientY + 14}px`;
    if (patch === last) return;
    last = patch;
    paint(canvas, image, one, kept, lit);
  };
  canvas.onmouseleave = () => { tip.hidden = true; last = undefined; paint(canvas, image, one, kept); };
}

const until = (layers) => (layers ? `enters ${layers > 1 ? `layers 1 to ${layers}` : "layer 1"} of the language model` : "does not enter the language model");

/** The layer of the view, from 1 on, in a language model of so many. */
const shownLayer = (depth) => (view.l ? Math.min(Number(view.l), depth) : depth);

/** Visual tokens that enter each layer, a bar each; where patches are known, a click shows those of its layer. */
function drawLayers(counts, own, known) {
  const most = Math.max(...counts), shown = shownLayer(counts.length);
  const bars = counts.map((count, layer) => {
    const changed = layer === 0 || count !== counts[layer - 1];
    const bar = make("button", {
      type: "button", disabled: !known, title: `layer ${layer + 1}: ${count} visual tokens enter`,
      "aria-label": `Layer ${layer + 1}: ${count} visual tokens enter`, "aria-pressed": String(known && layer + 1 === shown),
      style: { height: `${(66 * count) / most}px`, "--own": own },
    }, changed ? make("b", { textContent: count }) : "");
    bar.dataset.layer = layer + 1;
    bar.addEventListener("click", () => change({ l: String(layer + 1) }));
    return bar;
  });
  const drawn = known ? `; drawn are those of layer ${shown}` : "";
  return [make("div", { className: "layers" }, ...bars), make("small", { className: "soft", textContent: `tokens left, layer 1 to ${counts.length} of the language model${drawn}` })];
}

async function pane(part, q, subject) {
  const { own, data } = part, cell = cellOf(subject);
  const found = make("article", { className: "pane", style: { "--own": color(subject) } }, make("h3", { textContent: labelOf(subject) }));
  found.dataset.subject = subject;
  if (!data[subject]) {
    found.append(make("p", { className: "soft", textContent: "Not run on this benchmark." }));
    return found;
  }
  const arm = cell.arms[0], facts = study.arms[arm], said = data[subject][0], good = right(data[subject], q);
  const tokens = at(said.tokens, q), seed = cell.arms.length > 1 ? `, first of ${cell.arms.length} seeds` : "";
  const count = Number.isInteger(tokens) ? tokens : tokens.toFixed(1);
  found.append(make("small", { className: "soft", textContent: `${count} tokens${facts.late ? " per layer" : ""}${seed}${facts.asked ? ", chosen for this question" : ""}` }));
  const views = at(own.views, own.image[q]);
  const counts = said.layers ? at(said.layers, q).split(" ").filter(Boolean).map(Number) : [];
  let recorded = facts.selects && views.length ? await keptOn(own, arm, q) : null;
  if (said.left && views.length) {
    const left = await leftOn(own, arm, q), layer = shownLayer(counts.length);
    recorded = { merged: null, group: null, ...recorded, left, mask: (patch) => left(patch) >= layer };
  }
  // Where nothing is kept whole or merged, nothing is faded.
  const shows = ({ patch }) => recorded.tokens || recorded.mask(patch) || (recorded.merged && recorded.merged(patch));
  const kept = recorded && views.some((one) => patches(one[4]).some(shows)) ? recorded : null;
  const box = make("div", { className: views.length > 2 ? "views many" : "views" });
  await Promise.all(views.map(async (one) => {
    const canvas = make("canvas", { role: "img", "aria-label": `${labelOf(subject)}: kept patches ${one[0]}` });
    box.append(make("figure", {}, canvas, views.length > 1 ? make("figcaption", { textContent: one[0] }) : null));
    const image = await pictureOf(`images/${own.meta.name}/${own.image[q]}-${one[1]}.jpg`);
    paint(canvas, image, one, kept);
    if (kept) hover(canvas, image, one, kept);
  }));
  found.append(box);
  if (counts.length) found.append(...drawLayers(counts, color(subject), Boolean(recorded?.left)));
  found.append(make("p", { className: "answer" }, make("b", { className: good ? "right" : "wrong", textContent: good ? "✓ " : "✗ " }), String(at(said.answer, q))));
  return found;
}

async function drawDetail(now) {
  const current = now.current;
  if (!current) { byId("detail").replaceChildren(); return; }
  const part = now.gathered[current.b], { own } = part, q = current.q, image = own.image[q];
  const panes = await Promise.all(subjects().map((subject) => pane(part, q, subject)));
  if (now !== drawn) return;
  const phi = own.phi[image];
  const about = [`${own.meta.title}, image ${image + 1} of ${own.images.length}`, at(own.category, q), phi === null ? "" : `information score ${phi.toFixed(3)}`, `${own.disagree[q]} of ${Object.keys(own.meta.macs).length - 1} arms disagree with all tokens`].filter(Boolean).join(" · ");
  const others = own.onImage[image].filter((each) => each !== q);
  const asked = make("p", { className: "asked" }, String(at(own.question, q)).trim(), " ", make("b", { textContent: `→ ${at(own.target, q)}` }));
  // A pressed layer is drawn anew, and keeps the keyboard.
  const bar = document.activeElement?.dataset.layer, pressed = bar && document.activeElement.closest(".pane").dataset.subject;
  byId("detail").replaceChildren(asked, make("p", { className: "about", textContent: about }), make("div", { id: "panes" }, ...panes),
    ...(others.length ? [make("div", { id: "others" }, make("h2", { textContent: "Other questions on this image" }), ...others.map((each) => questionButton(now, current.b, each)))] : []));
  if (bar) panes.find((each) => each.dataset.subject === pressed)?.querySelector(`[data-layer="${bar}"]`)?.focus({ preventScroll: true });
}

/* Charts */

function chart(title, note, plot) {
  return make("div", { className: "chart" }, make("h2", { textContent: title }), make("p", { className: "soft", textContent: note }), plot);
}

/** Makes the n-th of the plot's dots a button that does `act` on datum n. */
function clickable(plot, data, act) {
  const dots = plot.querySelectorAll("g[aria-label=dot] circle, g[aria-label=dot] path");
  dots.forEach((dot, n) => { dot.classList.add("hit"); dot.addEventListener("click", () => act(data[n])); });
  return plot;
}

/** The study's own values by budget: [{key, line, cell, value, low, high}]. */
function tablePoints() {
  const name = view.b === ALL ? study.average : view.b;
  return study.lines.flatMap((line) => line.cells.filter((cell) => cell.budget !== null && cell.table[name]).map((cell) => {
    const [value, low, high] = cell.table[name];
    return { key: line.key, line, cell, budget: cell.budget, value, low, high, ms: study.arms[cell.arms[0]].ms, label: `${line.label}, ${cell.budget} tokens (${line.ablation})` };
  })).filter((point) => point.value !== null);
}

/** Shows where an arm and all tokens differ, at the budget of the point. */
function follow({ key, cell }) {
  const arms = view.arms.includes(key) ? view.arms : [...view.arms.slice(0, MOST - 1), key];
  change({ arms, n: cell.budget, x: WHOLE, y: key, o: "flip", q: "" });
}

function drawCharts(now) {
  const points = tablePoints(), ours = points.filter((point) => view.arms.includes(point.key));
  const ablations = new Set(view.arms.map((key) => lineOf(key).ablation));
  const others = points.filter((point) => ablations.has(point.line.ablation) && !view.arms.includes(point.key));
  const width = Math.max(280, Math.min(520, byId("charts").clientWidth - 10));
  const name = view.b === ALL ? study.average : view.b, all = study.whole[name];
  const meta = view.b === ALL ? null : study.benchmarks.find((b) => b.name === view.b);
  const label = meta ? `${meta.label}, ${meta.unit}` : "average, % of all tokens";
  const unfiltered = "The study's table, without the filter. A click shows the flips of that arm.";
  const best = all ? all[0] : meta ? null : 100;
  const line = best === null ? [] : [Plot.ruleY([best], { stroke: INK, strokeDasharray: "3,3" })];
  const y = { label, grid: true, nice: true };
  const found = [];
  const ordered = [...others, ...ours];
  if (new Set(points.map((point) => point.budget)).size > 1 && ordered.length) {
    const plot = Plot.plot({
      width, height: 300, marginLeft: 48, x: { type: "log", label: "budget, tokens", ticks: [...new Set(ordered.map((p) => p.budget))], tickFormat: "d" }, y,
      marks: [...line, Plot.line(others, { x: "budget", y: "value", z: "key", stroke: "#c3cad1" }),
        Plot.link(ours, { x: "budget", y1: "low", y2: "high", stroke: (p) => color(p.key), strokeOpacity: 0.4, strokeWidth: 3 }),
        Plot.line(ours, { x: "budget", y: "value", z: "key", stroke: (p) => color(p.key), strokeWidth: 2 }),
        Plot.dot(ordered, { x: "budget", y: "value", r: (p) => (view.arms.includes(p.key) ? 5 : 3), fill: (p) => (view.arms.includes(p.key) ? color(p.key) : "#aeb7c0"), sort: null }),
        Plot.tip(ordered, Plot.pointer({ x: "budget", y: "value", title: (p) => `${p.label}\n${p.value.toFixed(1)} [${p.low.toFixed(1)}, ${p.high.toFixed(1)}]` }))],
      r: { type: "identity" }, color: { type: "identity" },
    });
    found.push(chart("By budget", `${unfiltered} Dashed: all tokens.`, clickable(plot, ordered, follow)));
  }
  const byArm = new Map();
  for (const point of points) if (point.ms && (!byArm.has(point.cell.arms[0]) || view.arms.includes(point.key))) byArm.set(point.cell.arms[0], point);
  const clocked = [...byArm.values()];
  if (clocked.length) {
    const whole = study.arms[study.all.arms[0]].ms;
    const plot = Plot.plot({
      width, height: 300, marginLeft: 48, x: { label: "measured ms per request, median", grid: true, nice: true }, y,
      marks: [...line, ...(whole ? [Plot.ruleX([whole[0]], { stroke: INK, strokeDasharray: "3,3" })] : []),
        Plot.dot(clocked, { x: (p) => p.ms[0], y: "value", r: (p) => (view.arms.includes(p.key) ? 6 : 4), fill: (p) => (view.arms.includes(p.key) ? color(p.key) : "#aeb7c0"), sort: null }),
        Plot.tip(clocked, Plot.pointer({ x: (p) => p.ms[0], y: "value", title: (p) => `${p.label}\n${p.value.toFixed(1)}, ${p.ms[0].toFixed(1)} ms` }))],
      r: { type: "identity" }, color: { type: "identity" },
    });
    found.push(chart("By measured time", `${unfiltered} Only arms that were clocked. Dashed: all tokens.`, clickable(plot, clocked, follow)));
  }
  const bins = lossBins(now);
  if (bins.length) {
    const plot = Plot.plot({
      width, height: 300, marginLeft: 48, x: { label: "information score φ of the image", nice: true }, y: { label: "right answers lost, points", grid: true, nice: true },
      marks: [Plot.ruleY([0], { stroke: INK }), Plot.line(bins, { x: "phi", y: "loss", z: "key", stroke: (p) => color(p.key), strokeWidth: 1.5 }),
        Plot.dot(bins, { x: "phi", y: "loss", r: 6, fill: (p) => color(p.key), sort: null }),
        Plot.tip(bins, Plot.pointer({ x: "phi", y: "loss", title: (p) => `${labelOf(p.key)}\nφ ${p.low.toFixed(3)} to ${p.high.toFixed(3)}: ${p.questions} questions\n${p.loss.toFixed(1)} points lost` }))],
      color: { type: "identity" }, r: { type: "identity" },
    });
    found.push(chart("Information score and what is lost", "Right answers of all tokens minus the arm's, by equal shares of images, on the benchmark's questions. A click filters to those images.", clickable(plot, bins, (bin) => change({ lo: bin.lowText, hi: bin.highText, q: "" }))));
  }
  byId("charts").replaceChildren(...found);
}

/** Loss of each arm in equal shares of the images, by rising phi. */
function lossBins({ gathered }) {
  const images = gathered.flatMap(({ own }, b) => own.phi.map((phi, image) => ({ phi, b, image }))).filter((each) => each.phi !== null && gathered[each.b].own.first[each.image] >= 0);
  images.sort((one, two) => one.phi - two.phi);
  const count = Math.min(BINS, Math.floor(images.length / 2));
  const found = [];
  for (let n = 0; n < count; n++) {
    const own = images.slice(Math.floor((n * images.length) / count), Math.floor(((n + 1) * images.length) / count));
    const low = own[0].phi, high = own[own.length - 1].phi;
    for (const key of view.arms) {
      let lost = 0, questions = 0;
      for (const { b, image } of own) {
        const part = gathered[b];
        if (!part.data[key]) continue;
        for (const q of part.own.onImage[image]) {
          lost += part.data[WHOLE][0].score[q] - part.data[key].reduce((sum, seed) => sum + seed.score[q], 0) / part.data[key].length;
          questions++;
        }
      }
      const bounds = { lowText: String(Math.floor(low * 1e4) / 1e4), highText: String(Math.ceil(high * 1e4) / 1e4) };
      if (questions) found.push({ key, phi: (low + high) / 2, low, high, ...bounds, questions, loss: (100 * lost) / questions });
    }
  }
  return found;
}

/* From the view to the page */

let drawn = null;

/** Draws the view anew; what a later call draws is not overwritten by an earlier one. */
async function draw() {
  const now = { serial: (drawn ? drawn.serial : 0) + 1 };
  drawn = now;
  document.body.setAttribute("aria-busy", "true");
  try {
    drawChoice();
    now.gathered = await gather();
    if (now !== drawn) return;
    drawFamilies(now.gathered);
    now.questions = chosenQuestions(now.gathered);
    now.current = find(now) || now.questions[0] || null;
    const name = now.current ? nameOf(now.gathered[now.current.b], now.current.q) : "";
    if (name !== view.q) { view.q = name; history.replaceState(null, "", address()); }
    drawNumbers(now.gathered, now.questions);
    drawList(now);
    await drawDetail(now);
    if (now !== drawn) return;
    drawCharts(now);
    byId("problem").hidden = true;
    document.body.dataset.drawn = now.serial;
    document.body.removeAttribute("aria-busy");
  } catch (error) {
    byId("problem").textContent = error.message;
    byId("problem").hidden = false;
    throw error;
  }
}

/** Only another question or layer: all but the list's mark and the image stays. */
async function step() {
  const now = { ...drawn, serial: drawn.serial + 1, current: find(drawn) };
  drawn = now;
  document.body.setAttribute("aria-busy", "true");
  drawList(now);
  await drawDetail(now);
  if (now !== drawn) return;
  document.body.dataset.drawn = now.serial;
  document.body.removeAttribute("aria-busy");
}

/** The question of the view, wherever the filter puts it. */
function find({ gathered }) {
  for (let b = 0; b < gathered.length; b++) {
    const { own } = gathered[b], prefix = `${own.meta.name}/`;
    if (!view.q.startsWith(prefix)) continue;
    const place = own.ids.values.indexOf(view.q.slice(prefix.length));
    const q = own.ids.of.indexOf(place);
    if (place >= 0 && q >= 0) return { b, q };
  }
  return null;
}

function change(given) {
  view = { ...view, ...given };
  for (const side of ["x", "y"]) if (![WHOLE, ...view.arms].includes(view[side])) view[side] = DEFAULTS[side];
  history.pushState(null, "", address());
  const only = Object.keys(given).every((name) => name === "q" || name === "l");
  return only && drawn && drawn.questions ? step() : draw();
}

/** Goes to the next question in the list, in a direction, that `wanted` accepts. */
function go(direction, wanted) {
  const now = drawn;
  if (!now || !now.questions || !now.current) return;
  const { b, q } = now.current;
  let place = now.questions.findIndex((each) => each.b === b && each.q === q);
  for (place += direction; place >= 0 && place < now.questions.length; place += direction) {
    const next = now.questions[place];
    if (wanted(next, now)) { change({ q: nameOf(now.gathered[next.b], next.q) }); return; }
  }
}

const otherImage = (next, { current, gathered }) => next.b !== current.b || gathered[next.b].own.image[next.q] !== gathered[next.b].own.image[current.q];
const flips = (next, { gathered }) => isFlip(gathered[next.b], next.q);
const KEYS = {
  j: () => go(1, () => true), k: () => go(-1, () => true),
  ArrowRight: () => go(1, otherImage), ArrowLeft: () => go(-1, otherImage),
  f: () => go(1, flips), d: () => go(-1, flips),
  "[": () => budget(-1), "]": () => budget(1), r: () => reset(),
};

function budget(direction) {
  const next = study.budgets[study.budgets.indexOf(view.n) + direction];
  if (next) change({ n: next });
}

const reset = () => change({ ...DEFAULTS, x: view.x, y: view.y, l: view.l });

function listen() {
  const set = (id, name, event = "change") => byId(id).addEventListener(event, () => change({ [name]: byId(id).value, ...(name === "q" ? {} : { q: name === "b" ? "" : view.q }) }));
  for (const [id, name] of [["benchmark", "b"], ["x", "x"], ["y", "y"], ["outcome", "o"], ["family", "f"], ["sort", "s"], ["low", "lo"], ["high", "hi"]]) set(id, name);
  set("text", "w", "search");
  set("text", "w");
  byId("budget").addEventListener("input", () => change({ n: study.budgets[byId("budget").value] }));
  byId("add").addEventListener("change", () => { if (byId("add").value) change({ arms: [...view.arms, byId("add").value] }); });
  byId("reset").addEventListener("click", reset);
  byId("help").addEventListener("click", () => {
    byId("keys").hidden = !byId("keys").hidden;
    byId("help").setAttribute("aria-expanded", String(!byId("keys").hidden));
  });
  byId("link").addEventListener("click", async () => {
    // A page from a file may not use the clipboard everywhere; the address bar has the link, too.
    const done = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
    byId("link").textContent = done ? "Copied" : "The link is in the address bar";
    setTimeout(() => { byId("link").textContent = "Copy link to this view"; }, 2000);
  });
  window.addEventListener("popstate", () => { view = fromAddress(); draw(); });
  document.addEventListener("keydown", (event) => {
    const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
    event.preventDefault();
    KEYS[event.key]();
  });
}

async function open() {
  study = await load("study");
  study.all = { budget: null, arms: [0], benchmarks: study.benchmarks.map((b) => b.name), table: study.whole };
  study.budgets = [...new Set(study.lines.flatMap((line) => line.cells.map((cell) => cell.budget)))].filter((n) => n !== null).sort((a, b) => a - b);
  view = fromAddress();
  document.title = `${study.title}: explorer`;
  byId("title").textContent = study.title;
  byId("model").textContent = study.model;
  listen();
  await draw();
}

open();
