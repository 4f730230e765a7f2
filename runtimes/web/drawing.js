// Draws what a step did: the tokens that were drafted, and those that the target accepted.

const SVG = "http://www.w3.org/2000/svg";
const CELL = { width: 82, height: 32, gapX: 16, gapY: 8 };
const MOST_CHARACTERS = 10;

/** @typedef {{ labels: string[], parents: number[], path: number[] }} Tree */

/**
 * Returns a token's text with its white space visible, cut to fit.
 * @param {string} text
 */
export function visible(text) {
  const shown = text.replace(/ /g, "·").replace(/\n/g, "⏎").replace(/\t/g, "⇥") || "∅";
  return shown.length > MOST_CHARACTERS ? `${shown.slice(0, MOST_CHARACTERS - 1)}…` : shown;
}

/**
 * Returns the place of each node: its depth, and its line. A node stands beside its first child.
 * @param {number[]} parents
 */
export function places(parents) {
  /** @type {number[]} */
  const depths = [];
  /** @type {number[]} */
  const lines = parents.map(() => -1);
  parents.forEach((parent) => depths.push(parent < 0 ? 0 : depths[parent] + 1));
  let line = 0;
  const put = (/** @type {number} */ slot) => {
    const children = parents.flatMap((parent, child) => (parent === slot ? [child] : []));
    if (!children.length) lines[slot] = line++;
    children.forEach(put);
    if (children.length) lines[slot] = lines[children[0]];
  };
  put(0);
  return { depths, lines, lineCount: line };
}

/**
 * Draws a step into an element.
 * @param {Element} parent
 * @param {Tree} tree
 */
export function draw(parent, tree) {
  const isChain = tree.parents.every((each, slot) => each === slot - 1);
  parent.replaceChildren(isChain ? chainElement(tree) : treeElement(tree));
}

/**
 * Says what a node is, in a word that is also its class.
 * @param {Tree} tree
 * @param {number} slot
 */
function kind({ path }, slot) {
  if (slot === 0) return "pending";
  return path.includes(slot) ? "accepted" : "rejected";
}

/** @param {Tree} tree */
function chainElement(tree) {
  const list = document.createElement("ol");
  list.className = "chain";
  tree.labels.forEach((label, slot) => {
    const item = document.createElement("li");
    item.className = `node ${kind(tree, slot)}`;
    item.textContent = visible(label);
    item.title = `${JSON.stringify(label)}, ${kind(tree, slot)}`;
    list.append(item);
  });
  return list;
}

/** @param {Tree} tree */
function treeElement(tree) {
  const { depths, lines, lineCount } = places(tree.parents);
  const x = (/** @type {number} */ slot) => depths[slot] * (CELL.width + CELL.gapX);
  const y = (/** @type {number} */ slot) => lines[slot] * (CELL.height + CELL.gapY);
  const width = (Math.max(...depths) + 1) * (CELL.width + CELL.gapX) - CELL.gapX;
  const height = lineCount * (CELL.height + CELL.gapY) - CELL.gapY;
  const svg = element("svg", { viewBox: `-1 -1 ${width + 2} ${height + 2}`, width: width + 2, height: height + 2, class: "tree", role: "img" });
  const accepted = tree.path.length - 1;
  svg.append(element("title", {}, `A tree of ${tree.labels.length - 1} drafted tokens, ${accepted} of them accepted`));
  const edges = element("g", {});
  const nodes = element("g", {});
  tree.parents.forEach((parent, slot) => {
    const place = element("g", { class: `node ${kind(tree, slot)}`, transform: `translate(${x(slot)} ${y(slot)})` });
    place.append(
      element("rect", { width: CELL.width, height: CELL.height, rx: 7 }),
      element("text", { x: CELL.width / 2, y: CELL.height / 2 }, visible(tree.labels[slot])),
      element("title", {}, `${JSON.stringify(tree.labels[slot])}, ${kind(tree, slot)}`),
    );
    nodes.append(place);
    if (parent < 0) return;
    const [fromX, fromY, toX, toY] = [x(parent) + CELL.width, y(parent) + CELL.height / 2, x(slot), y(slot) + CELL.height / 2];
    const middle = (fromX + toX) / 2;
    edges.append(
      element("path", { class: `edge ${kind(tree, slot)}`, d: `M${fromX} ${fromY}C${middle} ${fromY} ${middle} ${toY} ${toX} ${toY}` }),
    );
  });
  svg.append(edges, nodes);
  return svg;
}

/**
 * Draws a bar for each step: what was drafted, and what of it was accepted.
 * @param {Element} parent
 * @param {Tree[]} trees
 * @param {number} chosen the step that is shown.
 */
export function drawHistory(parent, trees, chosen) {
  const most = Math.max(1, ...trees.map((tree) => depth(tree)));
  parent.replaceChildren(
    ...trees.map((tree, i) => {
      const bar = document.createElement("i");
      bar.className = i === chosen ? "chosen" : "";
      bar.style.setProperty("--drafted", `${depth(tree) / most}`);
      bar.style.setProperty("--accepted", `${(tree.path.length - 1) / most}`);
      return bar;
    }),
  );
}

/** @param {Tree} tree */
function depth({ parents }) {
  return Math.max(...places(parents).depths);
}

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 * @param {string} [text]
 */
function element(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.textContent = text;
  return made;
}
