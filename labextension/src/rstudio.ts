/**
 * Plugin: RStudio Server of a cluster in a tab, and the launcher tile "RStudio (cluster)".
 *
 * Tile and icons are our own, because jupyter-server-proxy, whose command opens the tab, draws those of notebooks only.
 */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { MainAreaWidget } from '@jupyterlab/apputils';
import { PageConfig } from '@jupyterlab/coreutils';
import { ILauncher } from '@jupyterlab/launcher';

import { CATEGORY } from './commands';
import { sessionIcon } from './icon';

const COMMAND = 'ppe-jupyter:rstudio-tab';
/** jupyter-server-proxy's. */
const PROXY = 'server-proxy:open';
const TITLE = 'RStudio (cluster)';
const TAB = 'server-proxy:ppe-rstudio';

/** That of the cluster; else of the chosen one, or of the sole one that runs. */
export async function openRStudio(
  commands: JupyterFrontEnd['commands'],
  cluster = ''
): Promise<void> {
  const url = `${PageConfig.getBaseUrl()}ppe-rstudio/${cluster && `${cluster}/`}`;
  if (!commands.hasCommand(PROXY)) {
    window.open(url);
    return;
  }
  const id = `${TAB}${cluster && `:${cluster}`}`;
  const title = cluster ? `RStudio: ${cluster}` : TITLE;
  await commands.execute(PROXY, { id, title, url, newBrowserTab: false });
}

function dress(shell: JupyterFrontEnd.IShell): void {
  for (const widget of shell.widgets('main')) {
    if (widget instanceof MainAreaWidget && widget.content.id.startsWith(TAB)) {
      widget.title.icon = sessionIcon.bindprops({ stylesheet: 'mainAreaTab' });
    }
  }
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'ppe-jupyter:rstudio',
  description: 'A tile that opens RStudio Server of the chosen cluster, or of the sole one that runs.',
  autoStart: true,
  optional: [ILauncher],
  activate: (app: JupyterFrontEnd, launcher: ILauncher | null) => {
    const { commands } = app;
    commands.addCommand(COMMAND, {
      label: TITLE,
      caption: 'RStudio Server of the chosen cluster, or of the sole one that runs, in a tab',
      icon: sessionIcon,
      execute: () => openRStudio(commands)
    });
    // Whoever opens it: a tile, the sidebar, a notebook's button, or the layout that is restored.
    commands.commandExecuted.connect((_, { id, result }) => {
      if (id === PROXY) {
        void result.then(() => dress(app.shell));
      }
    });
    launcher?.add({ command: COMMAND, category: CATEGORY, rank: 2 });
  }
};

export default plugin;
