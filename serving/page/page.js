// The form, the answer, the request as a command, and the key.

const KEY = "eagleray-key"; // in sessionStorage, which ends with the tab
const find = (selector, inside = document) => inside.querySelector(selector);
const every = (selector, inside = document) => [...inside.querySelectorAll(selector)];

// Addresses are relative, so that the page works below any prefix.
const asked = (path, options = {}) => {
  const key = sessionStorage.getItem(KEY);
  const authorization = key ? {authorization: `Bearer ${key}`} : {};
  const headers = {...options.headers, ...authorization};
  return fetch(path, {cache: "no-store", ...options, headers});
};

/** What an answer that is not 200 says, in the words of the API; `details` name fields. */
const refusal = async (answer) => {
  const wait = answer.headers.get("retry-after");
  const again = wait ? ` Try again in ${wait} s.` : "";
  try {
    const {error} = await answer.json();
    return {message: `${error.message} (${answer.status}).${again}`, details: error.details ?? []};
  } catch {
    return {message: `The endpoint answered ${answer.status}.${again}`, details: []};
  }
};

// The row

const controls = () => every("[data-name]").map((field) => ({
  field,
  name: field.dataset.name,
  input: find("input, select, textarea", field),
  error: find(".error", field),
}));

/** The value that a field sends; undefined for none. */
const sent = (field) => {
  const text = find("[data-value]", field).value;
  if (text === "") return field.dataset.nullable === "true" ? null : undefined;
  if (field.dataset.typed !== "true") return text;
  try {
    const value = JSON.parse(text);
    return Number.isFinite(value) || typeof value === "boolean" || Array.isArray(value) ? value : text;
  } catch {
    return text;
  }
};

const body = () => {
  const row = {};
  for (const {field, name} of controls()) {
    const value = sent(field);
    if (value !== undefined) Object.defineProperty(row, name, {value, enumerable: true});
  }
  return JSON.stringify({instances: [row]});
};

// The request as a command

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const LONGEST = 4000; // characters of a body that a command can hold and a person can read

const command = () => {
  const path = `v1/models/${encodeURIComponent(find("#page").dataset.model)}:predict`;
  const url = new URL(path + (find("[data-explain]").checked ? "?explain=true" : ""), location.href);
  const key = sessionStorage.getItem(KEY) ? ' -H "authorization: Bearer $EAGLERAY_KEY"' : "";
  const row = body();
  const data = row.length > LONGEST ? "@row.json" : row;
  return `curl -s ${quoted(url.href)} -H 'content-type: application/json'${key} -d ${quoted(data)}`;
};

const drawCommand = () => {
  find("[data-curl]").textContent = command();
  find("[data-save]").hidden = body().length <= LONGEST;
  find("[data-copied]").textContent = "";
};

const copy = async () => {
  const line = find("[data-curl]");
  try {
    await navigator.clipboard.writeText(line.textContent);
  } catch { // no secure context: select it, and copy as the keyboard does
    getSelection().selectAllChildren(line);
    document.execCommand("copy");
  }
  find("[data-copied]").textContent = "Copied.";
};

const save = () => {
  const url = URL.createObjectURL(new Blob([body()], {type: "application/json"}));
  element("a", {href: url, download: "row.json"}).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
};

// Problems

const clear = () => {
  find("[data-problem]").hidden = true;
  for (const {input, error} of controls()) {
    error.hidden = true;
    input.removeAttribute("aria-invalid");
  }
};

/** Each problem beside its field, and all of them above the form. */
const drawProblems = ({message, details}) => {
  const box = find("[data-problem]"), list = element("ul"), named = controls();
  for (const {field, message: fault} of details) {
    const path = field.replace(/^instances\[\d+\]\.?/, "");
    const fits = named.filter(({name}) => path === name || path.startsWith(`${name}[`));
    const at = fits.find(({name}) => path === name) ?? fits[0];
    if (!at) {
      list.append(element("li", {}, path ? `${path}: ${fault}` : fault));
      continue;
    }
    at.error.textContent = fault;
    at.error.hidden = false;
    at.input.setAttribute("aria-invalid", "true");
    const link = element("a", {href: `#${at.input.id}`}, `${at.name}: ${fault}`);
    link.addEventListener("click", (event) => { event.preventDefault(); at.input.focus(); });
    list.append(element("li", {}, link));
  }
  const head = details.length ? "Mend what is marked, and ask again." : message;
  box.replaceChildren(element("p", {class: "bad"}, head), list);
  box.hidden = false;
  box.focus();
  find("[data-answer]").replaceChildren(element("p", {class: "quiet"}, "There is no answer to this row."));
};

// The answer

const MOST_LINES = 10;

/** Rows of a table, the others behind a summary. */
const folded = (caption, headings, rows, numbers) => {
  const first = table(caption, headings, rows.slice(0, MOST_LINES), numbers);
  const others = rows.slice(MOST_LINES);
  if (!others.length) return [first];
  const more = element("details", {}, element("summary", {}, `${others.length} more`));
  more.append(table(`${caption}, the others`, headings, others, numbers));
  return [first, more];
};

const drawShares = (name, shares) => {
  const pairs = Object.entries(shares).sort((one, other) => other[1] - one[1]);
  const least = Math.min(0, ...pairs.map(([, value]) => value));
  const most = Math.max(1, ...pairs.map(([, value]) => value));
  const format = even(Math.max(...pairs.map(([, value]) => Math.abs(value))));
  const rows = pairs.map(([key, value]) => [key, shown(value, format), bar(value, least, most)]);
  return folded(name, ["of", "value", "from 0"], rows, [1]);
};

const drawLists = (name, lists) => {
  if (!lists.length) return [];
  const places = lists[0][1].map((_, place) => [place + 1, ...lists.map(([, list]) => list[place])]);
  const rows = places.map((cells) => cells.map((cell) => shown(cell)));
  return folded(name, ["place", ...lists.map(([key]) => key)], rows, [0]);
};

const drawExplanation = ({mean, contributions}, explained) => {
  const pairs = Object.entries(contributions).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const most = Math.abs(pairs[0][1]), signed = even(most, {signDisplay: "exceptZero"});
  const given = Object.fromEntries(controls().map(({field, name}) => {
    const text = find("[data-value]", field).value;
    return [name, text && find("[data-drop]", field) ? "(picture)" : text];
  }));
  const rows = pairs.map(([name, value]) => {
    const text = given[name] ?? "";
    const entered = text === "" ? "(missing)" : text.length > 40 ? `${text.slice(0, 39)}\u2026` : text;
    return [name, entered, shown(value, signed), bar(value, -most, most)];
  });
  return [
    element("h3", {}, "Why"),
    element("p", {}, `${explained} is ${shown(mean)} on average. Here ${pairs[0][0]} moves it most, by ${shown(pairs[0][1], signed)}.`),
    ...folded("What each column adds to that average", ["column", "this row", "adds", "less or more"], rows, [2]),
  ];
};

const drawAnswer = (said, version, milliseconds) => {
  const place = find("[data-answer]"), {warnings, explanation, ...values} = said.predictions[0];
  const [[, first], ...others] = Object.entries(values);
  const simple = others.filter(([, value]) => !(value instanceof Object));
  const facts = element("dl", {class: "facts"});
  for (const [key, value] of simple) facts.append(element("dt", {}, key), element("dd", {}, shown(value)));
  const explained = typeof first === "string" ? `The probability of ${first}` : place.dataset.target;
  const served = find("#page").dataset.version;
  const which = version === served ? "" : `; the page was made for version ${served}`;
  place.replaceChildren(
    element("p", {class: "headline"}, `${place.dataset.target}: ${shown(first)}`),
    ...(simple.length ? [facts] : []),
    ...(warnings ?? []).map((text) => element("p", {class: "bad"}, `Unusual: ${text}`)),
    ...drawLists(place.dataset.target, others.filter(([, value]) => Array.isArray(value))),
    ...others.filter(([, value]) => value instanceof Object && !Array.isArray(value)).flatMap(([key, value]) => drawShares(key, value)),
    ...(explanation ? drawExplanation(explanation, explained) : []),
    element("p", {class: "quiet small", "data-by": ""},
      `Answered by version ${version} in ${shown(Math.round(milliseconds))} ms${which}.`),
  );
};

const predict = async (button) => {
  if (button.getAttribute("aria-disabled") === "true") return;
  clear();
  button.setAttribute("aria-disabled", "true");
  const query = find("[data-explain]").checked ? "?explain=true" : "", began = performance.now();
  try {
    const headers = {"content-type": "application/json"};
    const answer = await asked(`predict${query}`, {method: "POST", body: body(), headers});
    if (answer.ok) {
      const version = answer.headers.get("x-eagleray-version");
      drawAnswer(await answer.json(), version, performance.now() - began);
    } else {
      drawProblems(await refusal(answer));
    }
  } catch {
    drawProblems({message: "The endpoint cannot be reached.", details: []});
  } finally {
    button.removeAttribute("aria-disabled");
  }
};

// Pictures

const take = (field, file) => {
  const reader = new FileReader();
  reader.addEventListener("load", () => {
    find("[data-value]", field).value = reader.result.slice(reader.result.indexOf(",") + 1);
    drawPreview(field, reader.result);
  });
  reader.readAsDataURL(file);
};

const drawPreview = (field, url) => {
  const picture = find("[data-preview]", field);
  picture.hidden = !url;
  if (url) picture.src = url;
  drawCommand();
};

const preparePicture = (field) => {
  const drop = find("[data-drop]", field), input = find("input", drop);
  const example = find("[data-preview]", drop).getAttribute("src");
  const over = (event, on) => { event.preventDefault(); drop.classList.toggle("over", on); };
  input.addEventListener("change", () => input.files.length && take(field, input.files[0]));
  drop.addEventListener("dragover", (event) => over(event, true));
  drop.addEventListener("dragleave", (event) => over(event, false));
  drop.addEventListener("drop", (event) => {
    over(event, false);
    if (event.dataTransfer.files.length) take(field, event.dataTransfer.files[0]);
  });
  find("[data-empty]", drop)?.addEventListener("click", () => {
    find("[data-value]", drop).value = input.value = "";
    drawPreview(field, "");
  });
  field.closest("form").addEventListener("reset", () => drawPreview(field, example === "data:," ? "" : example));
};

/** A picture that is pasted goes to the field with the focus, else to the first one. */
const paste = (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
  const fields = every("[data-name]").filter((field) => find("[data-drop]", field));
  const field = fields.find((one) => one.contains(document.activeElement)) ?? fields[0];
  if (file && field) take(field, file);
};

// The key

/** Replace this page by the one that the key opens; its scripts are those that run here. */
const open = async () => {
  const answer = await asked("./", {headers: {accept: "text/html"}});
  const other = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (!answer.ok) return find("[data-message]", other)?.textContent ?? `The endpoint answered ${answer.status}.`;
  document.title = other.title;
  find("#page").replaceWith(find("#page", other));
  prepare();
  return "";
};

const unlock = async (key) => {
  sessionStorage.setItem(KEY, key);
  const fault = await open().catch(() => "The endpoint cannot be reached.");
  if (!fault) return find("h1")?.scrollIntoView();
  sessionStorage.removeItem(KEY);
  const error = find("#key-error"), input = find("#key");
  find("[data-message]").hidden = true;
  error.textContent = fault;
  error.hidden = false;
  input.setAttribute("aria-invalid", "true");
  input.focus();
};

const forget = () => {
  sessionStorage.removeItem(KEY);
  location.reload();
};

const prepareKey = (form) => {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    unlock(find("#key").value.trim());
  });
  if (sessionStorage.getItem(KEY)) unlock(sessionStorage.getItem(KEY));
};

const prepareForm = (form) => {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    predict(find("[type=submit]", form));
  });
  form.addEventListener("input", drawCommand);
  form.addEventListener("reset", () => { clear(); setTimeout(drawCommand); });
  every("[data-name]").filter((field) => find("[data-drop]", field)).forEach(preparePicture);
  find("[data-copy]").addEventListener("click", copy);
  find("[data-save]").addEventListener("click", save);
  drawCommand();
  if (sessionStorage.getItem(KEY)) {
    const button = element("button", {type: "button", class: "plain"}, "Forget the key");
    button.addEventListener("click", forget);
    find("header nav").append(button);
  }
  prepareLive();
};

/** A page without a version opens once there is one. */
const waitForVersion = () => setTimeout(async () => {
  const ready = await fetch("readyz", {cache: "no-store"}).then((answer) => answer.ok, () => false);
  if (ready) location.reload();
  else waitForVersion();
}, 2000);

const prepare = () => {
  const locked = find("form[data-unlock]");
  if (locked) prepareKey(locked);
  else if (find("form")) prepareForm(find("form"));
  else if (find("#page").hasAttribute("data-again")) waitForVersion();
};

document.addEventListener("paste", paste);
prepare();
