/** An element with attributes and children; a child that is a text is never read as HTML. */
const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
};

const drawn = (name, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

const numeral = new Intl.NumberFormat("en", {maximumSignificantDigits: 4});

/** The format of numbers below each other: as many digits as `most` of them needs for three. */
const even = (most, options = {}) => {
  const digits = most > 0 ? Math.min(12, Math.max(0, 2 - Math.floor(Math.log10(most)))) : 0;
  return new Intl.NumberFormat("en", {minimumFractionDigits: digits, maximumFractionDigits: digits, ...options});
};

/** A number as people read it; any other value as its JSON. */
const shown = (value, format = numeral) => {
  if (typeof value === "number") return format.format(value).replace("-", "\u2212");
  return typeof value === "string" ? value : JSON.stringify(value);
};

/** A bar from zero; `least` and `most` are the ends of the scale. The number stands beside it. */
const bar = (value, least, most) => {
  const at = (one) => (most > least ? (100 * (one - least)) / (most - least) : 0);
  const [left, right] = [at(Math.min(0, value)), at(Math.max(0, value))];
  const svg = drawn("svg", {viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true"});
  const kind = value < 0 ? "less" : "more";
  svg.append(
    drawn("rect", {x: left, y: 1, width: Math.max(0.3, right - left), height: 10, class: kind}),
    drawn("line", {x1: at(0), x2: at(0), y1: 0, y2: 12, class: "axis", "vector-effect": "non-scaling-stroke"}),
  );
  return svg;
};

/** A table of texts; those of `numbers` columns are right-aligned. */
const table = (caption, headings, rows, numbers = []) => {
  const side = (column) => (numbers.includes(column) ? {class: "number"} : {});
  const head = headings.map((text, column) => element("th", {scope: "col", ...side(column)}, text));
  const cell = (one, column) => {
    if (one instanceof Element) return element("td", {class: "bar"}, one);
    return column === 0 ? element("th", {scope: "row"}, one) : element("td", side(column), one);
  };
  const lines = rows.map((row) => element("tr", {}, ...row.map(cell)));
  const made = element("table", {}, element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...lines));
  return element("div", {class: "scroll", role: "group", tabindex: "0", "aria-label": caption}, made);
};
