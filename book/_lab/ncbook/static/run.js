// An extension of JupyterLab, which `make lab` loads: when the explorer's notebook opens, its cells
// run, so that the panel is what one sees. JupyterLab has no setting for that. It is written by
// hand in the form that JupyterLab loads, so that nothing has to be built.
(() => {
  const NOTEBOOK = "explorer.ipynb";

  async function run(app, panel) {
    await panel.context.ready;
    await panel.sessionContext.ready;
    const done = app.commands.execute("notebook:run-all-cells");
    // To the top, at once and in the end: after a run the last cell is the active one.
    for (const moment of [null, done]) {
      await moment;
      panel.content.activeCellIndex = 0;
      await panel.content.scrollToItem(0, "start");
    }
  }

  function watch(app) {
    app.shell.collapseLeft();
    const seen = new WeakSet();
    const look = () => {
      const panel = app.shell.currentWidget;
      if (panel?.context?.path === NOTEBOOK && panel.sessionContext && !seen.has(panel)) {
        seen.add(panel);
        run(app, panel);
      }
    };
    app.shell.currentChanged.connect(look);
    look();
  }

  // It does not wait: JupyterLab counts as restored after all extensions have been activated.
  const activate = (app) => void app.restored.then(() => watch(app));
  const plugin = { id: "ncbook:run", autoStart: true, activate };
  (window._JUPYTERLAB ??= {}).ncbook = {
    init: () => undefined,
    get: async () => () => ({ __esModule: true, default: plugin }),
  };
})();
