"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const by = (id) => document.getElementById(id);
const boxes = data.boxes.map((box, at) => ({...box, input: by(`box-${at}`), wrong: by(`wrong-${at}`)}));
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const MOST_ADDS = 8;
const MOST_DIGITS = 6;
const FIGURES_MS = 2000;

// What is typed in a box, as JSON; undefined if there is nothing. What is no number stays text, which the service refuses.
function typed(box) {
  const given = box.input.value;
  if (box.kind === "choice") return given === "" ? undefined : box.options[Number(given)];
  if (box.kind === "text") return given === "" && !box.required ? undefined : given;
  const text = given.trim();
  if (text === "") return undefined;
  const number = (box.kind === "number" || box.kind === "time") && NUMBER.test(text) ? Number(text) : NaN;
  return Number.isFinite(number) ? number : text;
}

// The record in the form. Without a prototype, so that any name may be a field's.
function record() {
  const found = Object.create(null);
  for (const box of boxes) {
    const value = typed(box);
    if (value !== undefined) found[box.name] = value;
  }
  return found;
}

// The features in the form: a model is given all of them, and one that is missing as null or an empty text.
function features() {
  const found = record();
  for (const box of boxes) if (!(box.name in found)) found[box.name] = box.kind === "number" ? null : "";
  return found;
}

const instance = () => (data.decides ? record() : features());

// Whether a record can be sent as V2's typed columns. If not, V1 takes it, so that the service says what is wrong.
function fits(given) {
  return boxes.every((box) => (box.name in given ? box.kind !== "number" || typeof given[box.name] === "number" : !box.required));
}

function tensor(box, value) {
  const datatype = typeof value === "boolean" ? "BOOL" : typeof value === "string" ? "BYTES" : "FP64";
  return {name: box.name, datatype, shape: [1], data: [value]};
}

// The answer of the service to one record: {outputs by name}, {errors}, or {problem}.
async function ask() {
  const given = instance();
  const columns = !data.decides || fits(given);
  const path = columns ? `v2/models/${data.name}/infer` : `v1/models/${data.name}:predict`;
  const body = columns
    ? {inputs: boxes.filter((box) => box.name in given).map((box) => tensor(box, given[box.name])), outputs: data.outputs.map((name) => ({name}))}
    : {instances: [given]};
  const headers = {"content-type": "application/json", ...(data.decides ? {"x-on-error": "record"} : {})};
  const began = performance.now();
  let response, text;
  try {
    response = await fetch(path, {method: "POST", headers, body: JSON.stringify(body), cache: "no-store"});
    text = await response.text();
  } catch {
    return {problem: "The service cannot be reached."};
  }
  const found = {milliseconds: performance.now() - began, release: response.headers.get(data.header)};
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    return {problem: `The answer has the status ${response.status}, and is no JSON.`};
  }
  if (!response.ok) return {problem: answer.error ?? `The answer has the status ${response.status}.`, sent: body.inputs};
  if (!columns) return {...found, errors: answer.errors ?? []};
  const outputs = Object.create(null);
  for (const output of answer.outputs) outputs[output.name] = output;
  return {...found, outputs, errors: (outputs.errors?.data ?? []).map((error) => JSON.parse(error))};
}

const plain = (text) => text.replace(/-/g, "−");
const rounded = (number, digits = 4) => (number === null ? "∞" : plain(String(Number(number.toPrecision(digits)))));
const short = (milliseconds) => (milliseconds < 10 ? rounded(milliseconds, 2) : Math.round(milliseconds).toLocaleString("en"));
const signed = (number, digits) => (number > 0 ? "+" : "") + plain(number.toFixed(digits));
const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : share < 1 && share > 0.999 ? "> 99.9 %" : `${(100 * share).toFixed(1)} %`);

function tell(element, text) {
  element.textContent = text;
  element.hidden = text === "";
}

function mark(box, text) {
  tell(box.wrong, text);
  if (text) box.input.setAttribute("aria-invalid", "true");
  else box.input.removeAttribute("aria-invalid");
}

// The box that an error is about: the service names its input by place or by name.
function meant(problem, sent) {
  const place = /inputs\[(\d+)\]/.exec(problem);
  const name = place && sent ? sent[Number(place[1])]?.name : /`([^`]+)`/.exec(problem)?.[1];
  return boxes.find((box) => box.name === name);
}

function refuse(faults, problem) {
  for (const {box, text} of faults) mark(box, text);
  tell(by("problem"), problem);
  faults[0]?.box.input.focus();
}

function refused(answer) {
  if (answer.problem) {
    const box = meant(answer.problem, answer.sent);
    refuse(box ? [{box, text: answer.problem}] : [], box ? "" : answer.problem);
    return true;
  }
  const faults = [];
  const others = [];
  for (const {field, expected, got} of answer.errors) {
    const box = boxes.find((each) => each.name === field);
    const text = `Expected ${expected}, got ${got}.`;
    if (box) faults.push({box, text});
    else others.push(text);
  }
  faults.sort((one, other) => boxes.indexOf(one.box) - boxes.indexOf(other.box));
  const count = faults.length > 1 ? `${faults.length} fields do not fit.` : "";
  if (answer.errors.length) refuse(faults, [count, ...others].filter(Boolean).join(" "));
  return answer.errors.length > 0;
}

const first = (answer, name) => answer.outputs[name]?.data[0];

// The contributions to the score, or to the predicted class: a binary model's are to its second class.
function contributions(answer) {
  const found = answer.outputs.contributions;
  if (!found) return null;
  const chosen = data.classes.length ? data.column ?? data.classes.indexOf(first(answer, "label")) : data.column;
  if (found.shape.length === 3) {
    const width = found.shape[2];
    return chosen === null ? null : found.data.slice(chosen * width, (chosen + 1) * width);
  }
  return data.classes.length && chosen === 0 ? found.data.map((each) => -each) : found.data;
}

function row(template, table) {
  const made = by(template).content.firstElementChild.cloneNode(true);
  by(table).querySelector("tbody").append(made);
  return made;
}

function showOutcome(answer) {
  const decision = first(answer, "decision") ?? first(answer, "label");
  const score = data.score ? first(answer, data.score) : undefined;
  const label = first(answer, "label");
  const value = score === undefined ? "" : rounded(score, 6);
  tell(by("outcome"), decision ?? value);
  const scored = data.scored === "probability" ? `probability of ${label}` : data.scored;
  const parts = [
    decision !== undefined && value ? `${scored} ${value}` : decision === undefined ? data.scored : "",
    label !== undefined && label !== decision ? `predicted class ${label}` : "",
  ];
  const said = parts.filter(Boolean).join(" · ");
  tell(by("said"), said && said[0].toUpperCase() + said.slice(1));
}

function showScale(answer) {
  const score = first(answer, data.score);
  if (!data.axis || score === undefined || score === null) return;
  const {low, high, start, end} = data.axis;
  const at = start + ((Math.min(Math.max(score, low), high) - low) / (high - low)) * (end - start);
  by("mark").setAttribute("transform", `translate(${at.toFixed(1)} 0)`);
  by("mark").setAttribute("visibility", "visible");
  by("score").textContent = rounded(score, 6);
  const half = by("score").getComputedTextLength() / 2;
  by("score").setAttribute("x", Math.min(Math.max(at, half), start + end - half).toFixed(1));
  by("place").textContent = data.quantiles.length ? ` This one is higher than ${percent(place(score))} of them.` : "";
  const decision = first(answer, "decision") ?? first(answer, "label");
  const named = data.bands.map((band, index) => ({...band, index})).filter((band) => band.label === decision);
  const chosen = named.find((band) => (band.low ?? -Infinity) <= score && score < (band.high ?? Infinity)) ?? named[0];
  data.bands.forEach((_, index) => {
    for (const id of ["band", "label", "legend"]) by(`${id}-${index}`)?.classList.toggle("chosen", index === chosen?.index);
  });
}

// The share of the reference's scores that are below this one, from its quantiles.
function place(score) {
  const last = data.quantiles.length - 1;
  const above = data.quantiles.findIndex((each) => each >= score);
  if (above <= 0) return above < 0 ? 1 : 0;
  const [low, high] = [data.quantiles[above - 1], data.quantiles[above]];
  return (above - 1 + (score - low) / (high - low)) / last;
}

function showReasons(answer) {
  const texts = (answer.outputs.reasons?.data ?? []).filter(Boolean);
  by("reasons").hidden = !texts.length;
  by("reasons").querySelector("ol").replaceChildren(
    ...texts.map((text) => Object.assign(document.createElement("li"), {textContent: text})),
  );
}

function showClasses(answer) {
  const shares = answer.outputs.predict_proba?.data;
  by("classes").hidden = !shares;
  by("classes").querySelector("tbody").replaceChildren();
  const ordered = (shares ?? []).map((share, at) => ({share, name: data.classes[at]}));
  if (ordered.length > 2) ordered.sort((one, other) => other.share - one.share);
  for (const {share, name} of ordered) {
    const [head, bar, number] = row("chance", "classes").children;
    head.textContent = name;
    head.parentElement.classList.toggle("chosen", name === first(answer, "label"));
    bar.querySelector(".part").setAttribute("width", (100 * share).toFixed(2));
    number.textContent = percent(share);
  }
}

function showValues(answer) {
  const values = data.targets.length ? answer.outputs.predict?.data : undefined;
  by("values").hidden = !values;
  by("values").querySelector("tbody").replaceChildren();
  (values ?? []).forEach((value, at) => {
    const [head, number] = row("named", "values").children;
    head.textContent = data.targets[at];
    number.textContent = rounded(value, 6);
  });
}

// Contributions by the feature that they come from, the strongest first, and the weakest together.
function added(amounts) {
  const sums = new Map();
  data.sources.forEach((name, at) => sums.set(name, (sums.get(name) ?? 0) + amounts[at]));
  const all = [...sums].map(([name, amount]) => ({name, amount}));
  all.sort((one, other) => Math.abs(other.amount) - Math.abs(one.amount));
  if (all.length <= MOST_ADDS + 1) return all;
  const rest = all.slice(MOST_ADDS);
  return [...all.slice(0, MOST_ADDS), {name: `${rest.length} others`, amount: total(rest.map((each) => each.amount))}];
}

const total = (numbers) => numbers.reduce((sum, number) => sum + number, 0);

function showWhy(answer) {
  const amounts = contributions(answer);
  by("why").hidden = !amounts;
  by("why").querySelector("tbody").replaceChildren();
  if (!amounts) return;
  const shown = added(amounts);
  const longest = Math.max(...shown.map((each) => Math.abs(each.amount))) || 1;
  const digits = Math.min(Math.max(2 - Math.floor(Math.log10(longest / 5)), 0), MOST_DIGITS);
  for (const {name, amount} of shown) {
    const [head, bar, number] = row("add", "why").children;
    head.textContent = name;
    if (amount > 0 && data.texts[name] && data.texts[name] !== name) head.append(Object.assign(document.createElement("small"), {textContent: data.texts[name]}));
    const length = (47 * Math.abs(amount)) / longest;
    const drawn = bar.querySelector("rect");
    drawn.setAttribute("class", amount > 0 ? "up" : "down");
    drawn.setAttribute("x", (amount > 0 ? 0 : -length).toFixed(2));
    drawn.setAttribute("width", length.toFixed(2));
    number.textContent = signed(amount, digits);
  }
  by("base").textContent = signed(amounts.at(-1), digits);
  by("sum").textContent = plain(total(amounts).toFixed(digits));
  const of = data.classes.length ? ` of ${data.classes[data.column ?? data.classes.indexOf(first(answer, "label"))]}` : "";
  by("of").textContent = data.sum + of;
}

function show(answer) {
  by("waiting").hidden = true;
  by("changed").hidden = true;
  showOutcome(answer);
  if (data.score) showScale(answer);
  showReasons(answer);
  showClasses(answer);
  showValues(answer);
  showWhy(answer);
  const another = answer.release && answer.release !== data.release;
  const release = another ? ` Another release answered than this page is of, ${answer.release}: load the page again.` : "";
  tell(by("made"), `Answered in ${short(answer.milliseconds)} ms, measured in this browser.${release}`);
  by("answer").scrollIntoView({block: "nearest"});
}

let asking = false;
by("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (asking) return;
  asking = true;
  by("answer").setAttribute("aria-busy", "true");
  const answer = await ask();
  for (const box of boxes) mark(box, "");
  tell(by("problem"), "");
  if (!refused(answer)) show(answer);
  by("answer").removeAttribute("aria-busy");
  asking = false;
});

// JSON with spaces, where long lines break.
const spaced = (found) => `{${Object.entries(found).map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`).join(", ")}}`;

function showCalls() {
  const given = spaced(instance());
  const {origin} = location;
  const url = new URL(`v1/models/${data.name}:predict`, location.href).href;
  const body = `{"instances": [${given}]}`.replaceAll("'", "'\\''");
  by("curl").textContent = `curl -s -H 'content-type: application/json' \\\n  ${url} \\\n  -d '${body}'`;
  const python = given.replace(/"(?:[^"\\]|\\.)*"|\b(?:true|false|null)\b/g, (word) => ({true: "True", false: "False", null: "None"})[word] ?? word);
  by("python").textContent = [
    "from tabserve.client import Client",
    "",
    `record = ${python}`,
    `with Client("${origin}") as client:`,
    `    print(client.decide("${data.name}", [record])[0])`,
  ].join("\n");
}

by("form").addEventListener("input", (event) => {
  const box = boxes.find((each) => each.input === event.target);
  if (box) mark(box, "");
  by("changed").hidden = by("outcome").hidden;
  showCalls();
});

by("form").addEventListener("reset", () => {
  for (const box of boxes) mark(box, "");
  tell(by("problem"), "");
  by("changed").hidden = by("outcome").hidden;
  setTimeout(showCalls);
});

for (const button of document.querySelectorAll("[data-copies]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(by(button.dataset.copies).textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
}

let before = null;
async function showFigures() {
  if (document.hidden) return;
  let found;
  try {
    const response = await fetch(data.figures, {cache: "no-store"});
    found = response.ok ? await response.json() : null;
  } catch {
    found = null;
  }
  by("figures").classList.toggle("quiet", !found);
  if (!found) return;
  const now = performance.now();
  const count = (number) => number.toLocaleString("en");
  const milliseconds = (number) => (number === null ? "–" : `${short(number)} ms`);
  by("requests").textContent = count(found.requests);
  by("refused").textContent = count(found.refused);
  by("failed").textContent = count(found.failed);
  by("p50").textContent = milliseconds(found.p50_ms);
  by("p99").textContent = milliseconds(found.p99_ms);
  const rate = before && found.requests >= before.requests ? (1000 * (found.requests - before.requests)) / (now - before.now) : null;
  by("rate").textContent = rate === null ? "–" : rounded(rate, 2);
  before = {now, requests: found.requests};
}

showCalls();
showFigures();
setInterval(showFigures, FIGURES_MS);
