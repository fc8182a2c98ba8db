// Texts and controls below an element whose contrast is less than the 4.5 that WCAG asks for.
root => {
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0.05);
  const parsed = (colour) => colour.match(/[\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], below) => [r, g, b].map((c, k) => a * c + (1 - a) * below[k]);
  const behind = (one) => {
    if (!one) return [255, 255, 255];
    const own = parsed(getComputedStyle(one).backgroundColor);
    return own[3] === 0 ? behind(one.parentElement) : over(own, own.length > 3 ? behind(one.parentElement) : own);
  };
  const found = [], walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const one = walk.currentNode.parentElement, seen = one.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    if (!walk.currentNode.data.trim() || !seen || one.closest("style, script, :disabled, .disabled, option")) continue;
    const style = getComputedStyle(one), back = behind(one);
    const ink = over(parsed(one.closest("svg") ? style.fill : style.color), back);
    const [p, q] = [light(ink), light(back)].sort((x, y) => x - y);
    if (q / p < 4.5) found.push([walk.currentNode.data.trim().slice(0, 40), q / p, style.color, back.join()]);
  }
  for (const one of root.querySelectorAll("select, input, button:not(:has(svg, i))")) {
    if (!one.checkVisibility() || one.matches(":disabled, .disabled")) continue;
    const back = behind(one), ink = over(parsed(getComputedStyle(one).color), back);
    const [p, q] = [light(ink), light(back)].sort((x, y) => x - y);
    if (q / p < 4.5 && one.type !== "range") found.push([one.outerHTML.slice(0, 60), q / p, back.join()]);
  }
  return found;
}
