// A table whose buttons send their value to Python.
export default {
  render({ model, el }) {
    const draw = () => { el.innerHTML = model.get("html"); };
    model.on("change:html", draw);
    draw();
    el.addEventListener("click", ({ target }) => {
      const cell = target.closest("button");
      if (cell) model.send(cell.value);
    });
  },
};
