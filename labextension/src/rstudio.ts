/**
 * Plugin: RStudio Server of a cluster in a tab, and the launcher tile "RStudio (cluster)".
 *
 * A tile of our own, because jupyter-server-proxy, whose command opens the tab, draws icons of notebooks only.
 */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { PageConfig } from '@jupyterlab/coreutils';
import { ILauncher } from '@jupyterlab/launcher';
import { LabIcon } from '@jupyterlab/ui-components';

import { CATEGORY } from './commands';

const COMMAND = 'ppe-jupyter:rstudio-tab';
/** jupyter-server-proxy's. */
const PROXY = 'server-proxy:open';
const TITLE = 'RStudio (cluster)';
const SVG = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <circle cx="12" cy="12" r="10" fill="#4a8cc7"/>
  <path fill="#fff" d="M8 6.5h4.6c2.3 0 3.8 1.2 3.8 3.2 0 1.5-.8 2.5-2.1 3l2.6 4.8h-2.3l-2.3-4.5H10v4.5H8zm2 1.8v3h2.4c1.2 0 1.9-.6 1.9-1.5s-.7-1.5-1.9-1.5z"/>
</svg>`;

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
  const id = `server-proxy:ppe-rstudio${cluster && `:${cluster}`}`;
  const title = cluster ? `RStudio: ${cluster}` : TITLE;
  await commands.execute(PROXY, { id, title, url, newBrowserTab: false });
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
      icon: new LabIcon({ name: COMMAND, svgstr: SVG }),
      execute: () => openRStudio(commands)
    });
    launcher?.add({ command: COMMAND, category: CATEGORY, rank: 2 });
  }
};

export default plugin;
