/**
 * Plugin: the sidebar, the status bar item, the commands with their menu, tile and palette entries.
 *
 * Joins the other modules; in Notebook 7 there is no launcher and no status bar.
 */
import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, InputDialog, Notification } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { IMainMenu } from '@jupyterlab/mainmenu';
import { INotebookTracker } from '@jupyterlab/notebook';
import { IStatusBar } from '@jupyterlab/statusbar';
import { Menu } from '@lumino/widgets';

import { Api, type ICluster } from './api';
import { Changes } from './changes';
import { CATEGORY, COMMANDS } from './commands';
import { clusterIcon } from './icon';
import { createNotebook, insertConnect } from './notebook';
import { showNames } from './prompt';
import { openRStudio } from './rstudio';
import { Sidebar } from './sidebar';
import { ClusterStatus } from './status';
import { listen } from './urgent';
import { Watch } from './watch';

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'ppe-jupyter:clusters',
  description: 'Clusters in a sidebar and the status bar: launch, connect, change, end.',
  autoStart: true,
  optional: [INotebookTracker, ILauncher, ICommandPalette, IMainMenu, IStatusBar, ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    notebooks: INotebookTracker | null,
    launcher: ILauncher | null,
    palette: ICommandPalette | null,
    mainMenu: IMainMenu | null,
    statusBar: IStatusBar | null,
    restorer: ILayoutRestorer | null
  ) => {
    const watch = new Watch(new Api(app.serviceManager.serverSettings));
    const changes = new Changes(watch);
    const sidebar = new Sidebar(watch, changes, (verb, cluster) =>
      verb === 'connect' || verb === 'rstudio'
        ? app.commands.execute(COMMANDS[verb], { cluster: cluster.name })
        : changes.change(verb, cluster)
    );
    app.shell.add(sidebar, 'left', { rank: 650, type: 'Clusters' });
    restorer?.add(sidebar, sidebar.id);
    addCommands(app, { watch, changes, sidebar, notebooks });
    listen(changes, app.commands);
    if (notebooks) {
      showNames(notebooks, watch);
    }

    launcher?.add({ command: COMMANDS.launch, category: CATEGORY, rank: 1 });
    for (const command of Object.values(COMMANDS)) {
      palette?.addItem({ command, category: CATEGORY, args: { isPalette: true } });
    }
    const menu = new Menu({ commands: app.commands });
    menu.id = 'ppe-jupyter-menu';
    menu.title.label = CATEGORY;
    Object.values(COMMANDS).forEach(command => menu.addItem({ command, args: { isPalette: true } }));
    mainMenu?.addMenu(menu, false, { rank: 70 });
    statusBar?.registerStatusItem('ppe-jupyter:status', {
      item: new ClusterStatus(watch, () => void app.commands.execute(COMMANDS.show)),
      align: 'left',
      rank: 50
    });
  }
};

interface IParts {
  watch: Watch;
  changes: Changes;
  sidebar: Sidebar;
  notebooks: INotebookTracker | null;
}

function addCommands(app: JupyterFrontEnd, { watch, changes, sidebar, notebooks }: IParts): void {
  const { commands, serviceManager, shell } = app;
  const icon = ({ isPalette }: { isPalette?: unknown }) => (isPalette ? undefined : clusterIcon);
  const open = async (cwd: unknown, connect?: string) => {
    const path = await createNotebook(serviceManager, typeof cwd === 'string' ? cwd : '', connect);
    return commands.execute('docmanager:open', { path, factory: 'Notebook' });
  };
  const show = (form: boolean) => {
    sidebar.showForm(form);
    shell.activateById(sidebar.id);
  };
  commands.addCommand(COMMANDS.show, {
    label: 'Show clusters',
    caption: 'Clusters, what they cost, and what can be done with them',
    execute: () => show(false)
  });
  commands.addCommand(COMMANDS.launch, {
    label: ({ isPalette }) => (isPalette ? 'Launch an MPI cluster…' : 'MPI cluster'),
    caption: 'Launch an Open MPI + R cluster',
    icon,
    execute: () => show(true)
  });
  commands.addCommand(COMMANDS.notebook, {
    label: 'New cluster notebook',
    caption: 'Open a notebook that launches an Open MPI + R cluster',
    execute: ({ cwd }) => open(cwd)
  });
  commands.addCommand(COMMANDS.connect, {
    label: 'Connect the notebook to a cluster…',
    caption: 'Insert a cell that connects the notebook to a cluster; it is not run',
    execute: async ({ cluster, cwd }) => {
      const chosen = await choose(watch, 'connect', cluster);
      if (!chosen) {
        return;
      }
      const panel = notebooks?.currentWidget;
      if (panel) {
        shell.activateById(panel.id);
        insertConnect(panel, chosen.connect);
      } else {
        Notification.info('No notebook was open: a new one connects when its cell is run', {
          autoClose: 5000
        });
        await open(cwd, chosen.connect);
      }
    }
  });
  commands.addCommand(COMMANDS.rstudio, {
    label: 'Open RStudio of a cluster…',
    caption: 'RStudio Server of the master, in a tab',
    execute: async ({ cluster }) => {
      const chosen = await choose(watch, 'rstudio', cluster);
      return chosen && openRStudio(commands, chosen.name);
    }
  });
  commands.addCommand(COMMANDS.terminate, {
    label: 'Terminate a cluster…',
    caption: 'End a cluster for good, after a review of what would be lost',
    execute: async ({ cluster }) => {
      const chosen = await choose(watch, 'terminate', cluster);
      return chosen && changes.change('terminate', chosen);
    }
  });
}

/** The cluster of that name, else the sole one that allows the action, else the one that the user picks. */
async function choose(watch: Watch, action: string, name: unknown): Promise<ICluster | undefined> {
  const fit = watch.overview?.clusters.filter(each => each.actions.includes(action)) ?? [];
  if (typeof name === 'string') {
    return fit.find(each => each.name === name);
  }
  if (!fit.length) {
    Notification.warning('There is no such cluster now', { autoClose: 5000 });
  }
  if (fit.length < 2) {
    return fit[0];
  }
  const items = fit.map(each => each.name);
  const { value } = await InputDialog.getItem({ title: 'Which cluster?', label: 'Cluster', items });
  return fit.find(each => each.name === value);
}

export default plugin;
