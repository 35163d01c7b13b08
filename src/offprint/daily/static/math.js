"use strict";
// Sets the formulas in titles and abstracts. Without it, and where a formula cannot be set, its source stays.
(() => {
  // As in abstracts.py: a dollar opens before what is no space; it closes after what is no space and before no digit.
  const FORMULA = /\$\$([^$]+)\$\$|\\\[((?:[^\\]|\\[^()[\]])+)\\\]|\\\(((?:[^\\]|\\[^()[\]])+)\\\)|(?<![\\$])\$(?![\s$])((?:\\.|[^$\\])*?)(?<!\s)\$(?![0-9$])/gs;
  const LONGEST = 2000;
  const MOST = 1000;
  // Elements within one another: more than any real formula has, and fewer than browsers break at.
  const DEEPEST = 200;
  const OPTIONS = { throwOnError: true, trust: false, strict: "ignore", maxSize: 10, maxExpand: 100 };
  // Their MathML carries inline styles, which our Content-Security-Policy refuses.
  const STYLED = /\\(?:fcolorbox|pmb)\b/;

  const depth = (root) => {
    let deepest = 0;
    let level = 0;
    let element = root;
    while (element) {
      if (element.firstElementChild) {
        element = element.firstElementChild;
        deepest = Math.max(deepest, ++level);
        continue;
      }
      while (element !== root && !element.nextElementSibling) {
        element = element.parentElement;
        level -= 1;
      }
      element = element === root ? null : element.nextElementSibling;
    }
    return deepest;
  };

  let sets = 0;
  const set = (source, displayMode) => {
    if (source.length > LONGEST || ++sets > MOST) return null;
    const span = document.createElement("span");
    try {
      const output = STYLED.test(source) ? "html" : "htmlAndMathml";
      katex.render(source, span, { ...OPTIONS, displayMode, output });
    } catch {
      return null;
    }
    return depth(span) > DEEPEST ? null : span;
  };

  const typeset = (node) => {
    const text = node.data;
    const pieces = [];
    let end = 0;
    for (const match of text.matchAll(FORMULA)) {
      const source = match[1] ?? match[2] ?? match[3] ?? match[4];
      const display = match[1] !== undefined || match[2] !== undefined;
      const span = set(source, display);
      if (!span) continue;
      pieces.push(text.slice(end, match.index), span);
      end = match.index + match[0].length;
    }
    if (!pieces.length) return;
    node.replaceWith(...pieces, text.slice(end));
    // What is wider than the page is scrolled by keys as well.
    for (const piece of pieces) {
      const wide = piece.querySelector?.(".katex-display");
      if (wide && wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0;
    }
  };

  for (const element of document.querySelectorAll(".tex")) {
    const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    const nodes = [];
    while (walker.nextNode()) nodes.push(walker.currentNode);
    nodes.forEach(typeset);
  }
})();
