"use strict";
// Puts a Copy button beside every block of code. The page is complete without it.
(() => {
  const equip = (block) => {
    if (block.querySelector("button")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("code").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.append(button);
  };
  const equipAll = (root) => root.querySelectorAll("pre.code").forEach(equip);
  if (!navigator.clipboard) return;
  equipAll(document);
  document.body.addEventListener("htmx:afterSwap", () => equipAll(document));
  document.body.addEventListener("htmx:sseMessage", () => equipAll(document));
})();
