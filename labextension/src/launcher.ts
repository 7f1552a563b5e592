/**
 * Plugin: the launcher tile and palette command "MPI cluster".
 *
 * The notebook is written to disk and then opened, because Notebook 7 opens it in a page of its own.
 */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import type { KernelSpec, ServiceManager } from '@jupyterlab/services';

import { clusterIcon } from './icon';
import { clusterNotebook, type IKernelSpec } from './notebook';

const COMMAND = 'ppe-jupyter:new-cluster-notebook';
const CATEGORY = 'Cluster';

/** The server's default kernel if it speaks Python, else the first that does. */
async function pythonKernel(kernelspecs: KernelSpec.IManager): Promise<IKernelSpec | null> {
  await kernelspecs.ready;
  const specs = kernelspecs.specs;
  const known = Object.values(specs?.kernelspecs ?? {}).filter(spec => spec?.language === 'python');
  const spec = known.find(spec => spec?.name === specs?.default) ?? known[0];
  return spec ? { name: spec.name, display_name: spec.display_name, language: spec.language } : null;
}

/** Returns the path of the new notebook, in the folder `cwd`. */
async function createNotebook(services: ServiceManager.IManager, cwd: string): Promise<string> {
  const content = clusterNotebook(await pythonKernel(services.kernelspecs));
  const { path } = await services.contents.newUntitled({ path: cwd, type: 'notebook' });
  await services.contents.save(path, { type: 'notebook', format: 'json', content });
  return path;
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'ppe-jupyter:launcher',
  description: 'A tile and a command that open a notebook ready to launch an MPI cluster.',
  autoStart: true,
  optional: [ILauncher, ICommandPalette],
  activate: (app: JupyterFrontEnd, launcher: ILauncher | null, palette: ICommandPalette | null) => {
    const { commands, serviceManager } = app;
    commands.addCommand(COMMAND, {
      label: 'MPI cluster',
      caption: 'Open a notebook that launches an Open MPI + R cluster',
      icon: ({ isPalette }) => (isPalette ? undefined : clusterIcon),
      execute: async ({ cwd }) => {
        const path = await createNotebook(serviceManager, typeof cwd === 'string' ? cwd : '');
        return commands.execute('docmanager:open', { path, factory: 'Notebook' });
      }
    });
    launcher?.add({ command: COMMAND, category: CATEGORY, rank: 1 });
    palette?.addItem({ command: COMMAND, category: CATEGORY, args: { isPalette: true } });
  }
};

export default plugin;
