/**
 * Notebooks: the one that "New cluster notebook" opens, and the cell that connects an open one to a cluster.
 *
 * Nothing here runs anything: launching on AWS costs money, so the user starts it, after the review that
 * `%ppe_launch` shows.
 */
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { Contents, KernelSpec, ServiceManager } from '@jupyterlab/services';

const LOAD = '%load_ext ppe_jupyter';
const LOADED = /^\s*%(load|reload)_ext\s+ppe_jupyter\b/m;

const LAUNCH: Readonly<Record<string, string>> = {
  load: LOAD,
  launch: '%ppe_launch --nodes 2',
  'hello-r': `%%remote_r
library(Rmpi)
mpi.spawn.Rslaves()
mpi.remote.exec(paste("rank", mpi.comm.rank(), "on", Sys.info()[["nodename"]]))
mpi.close.Rslaves()`
};

interface IKernelSpec {
  name: string;
  display_name: string;
  language: string;
}

/** The server's default kernel if it speaks Python, else the first that does; null lets JupyterLab ask for one. */
async function pythonKernel(kernelspecs: KernelSpec.IManager): Promise<IKernelSpec | null> {
  await kernelspecs.ready;
  const specs = kernelspecs.specs;
  const known = Object.values(specs?.kernelspecs ?? {}).filter(spec => spec?.language === 'python');
  const spec = known.find(spec => spec?.name === specs?.default) ?? known[0];
  return spec ? { name: spec.name, display_name: spec.display_name, language: spec.language } : null;
}

function content(cells: Readonly<Record<string, string>>, kernel: IKernelSpec | null) {
  return {
    nbformat: 4,
    nbformat_minor: 5,
    metadata: kernel ? { kernelspec: kernel } : {},
    cells: Object.entries(cells).map(([id, source]) => ({
      id,
      cell_type: 'code',
      source,
      metadata: {},
      execution_count: null,
      outputs: []
    }))
  };
}

/** Makes a notebook that launches, or that connects by the cell `connect`; returns its path, in the folder `cwd`. */
export async function createNotebook(
  services: ServiceManager.IManager,
  cwd: string,
  connect?: string
): Promise<string> {
  const cells = connect ? { connect: `${LOAD}\n${connect}` } : LAUNCH;
  const options: Contents.ICreateOptions = { path: cwd, type: 'notebook' };
  const { path } = await services.contents.newUntitled(options);
  const made = content(cells, await pythonKernel(services.kernelspecs));
  await services.contents.save(path, { type: 'notebook', format: 'json', content: made });
  return path;
}

/** Puts the cell below the active one and makes it the active one, ready to be run. */
export function insertConnect({ content: notebook }: NotebookPanel, connect: string): void {
  const shared = notebook.model?.sharedModel;
  if (!shared) {
    return;
  }
  const loaded = shared.cells.some(cell => cell.cell_type === 'code' && LOADED.test(cell.getSource()));
  const index = notebook.activeCellIndex + 1;
  shared.insertCell(index, { cell_type: 'code', source: loaded ? connect : `${LOAD}\n${connect}` });
  notebook.activeCellIndex = index;
  notebook.deselectAll();
  notebook.mode = 'command';
  notebook.activate();
}
