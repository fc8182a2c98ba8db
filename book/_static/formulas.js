// Where a page is narrow a wide formula becomes smaller, before it has to scroll (in a line of text:
// before it is cut).
(() => {
  const LEAST = 0.7; // of its size
  const share = (formula) => {
    if (formula.getAttribute("display")) return formula.clientWidth / formula.scrollWidth;
    const room = formula.closest("p, li, dd, td, th, div").clientWidth;
    return room / formula.getBoundingClientRect().width;
  };
  const fit = () => {
    const formulas = [...document.querySelectorAll("article mjx-container")];
    for (const formula of formulas) {
      formula.dataset.size ??= parseFloat(formula.style.fontSize) || 100; // as MathJax set it
      formula.style.fontSize = `${formula.dataset.size}%`;
    }
    const shares = formulas.map(share); // all are measured before the first changes
    for (const [i, formula] of formulas.entries())
      if (shares[i] < 1)
        formula.style.fontSize = `${Math.max(0.99 * shares[i], LEAST) * formula.dataset.size}%`;
  };
  addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    fit();
    addEventListener("resize", fit);
    addEventListener("toggle", fit, true);
  });
})();
