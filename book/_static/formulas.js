// Where a page is narrow a wide formula becomes smaller, before it has to scroll.
(() => {
  const LEAST = 0.7; // of its size
  const fit = () => {
    for (const formula of document.querySelectorAll('mjx-container[display="true"]')) {
      formula.dataset.size ??= parseFloat(formula.style.fontSize) || 100; // as MathJax set it
      formula.style.fontSize = `${formula.dataset.size}%`;
      if (formula.scrollWidth > formula.clientWidth) {
        const share = Math.max((0.99 * formula.clientWidth) / formula.scrollWidth, LEAST);
        formula.style.fontSize = `${share * formula.dataset.size}%`;
      }
    }
  };
  addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    fit();
    addEventListener("resize", fit);
    addEventListener("toggle", fit, true);
  });
})();
