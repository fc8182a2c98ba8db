// Texts of the page whose contrast with what lies behind them is below 4.5, the least of WCAG 2.1
// (level AA, 1.4.3, with its relative luminance), which excepts controls that are out of use.
() => {
  const channels = (colour) => {
    const [red, green, blue, opacity = 1] = colour.match(/[\d.]+/g).map(Number);
    return [red, green, blue, opacity];
  };
  const over = (top, below) => below.map((c, i) => top[3] * top[i] + (1 - top[3]) * c);
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      layers.unshift(channels(getComputedStyle(e).backgroundColor));
    }
    return layers.reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const luminance = (colour) => {
    const linear = colour
      .map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const text = (element) =>
    [...element.childNodes].map((n) => (n.nodeType === Node.TEXT_NODE ? n.data : "")).join("");
  const contrast = (element) => {
    const below = behind(element);
    const colour = over(channels(getComputedStyle(element).color), below);
    const [low, high] = [luminance(colour), luminance(below)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  return [...document.querySelectorAll("main *")]
    .filter((e) => text(e).trim() && !e.closest("svg, mjx-container, script, style, .disabled"))
    .filter((e) => e.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }))
    .map((e) => [contrast(e), text(e).trim().slice(0, 40)])
    .filter(([ratio]) => ratio < 4.5)
    .map(([ratio, words]) => `${ratio.toFixed(1)}: ${words}`);
}
