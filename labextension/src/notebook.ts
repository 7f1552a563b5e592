/**
 * The notebook that "MPI cluster" opens, as nbformat 4.5 JSON. Nothing in it has run: launching on AWS costs
 * money, so the user starts it, after the review that `%ppe_launch` shows.
 */
const CELLS: Readonly<Record<string, string>> = {
  load: '%load_ext ppe_jupyter',
  launch: '%ppe_launch --nodes 2',
  'hello-r': `%%remote_r
library(Rmpi)
mpi.spawn.Rslaves()
mpi.remote.exec(paste("rank", mpi.comm.rank(), "on", Sys.info()[["nodename"]]))
mpi.close.Rslaves()`
};

export interface IKernelSpec {
  name: string;
  display_name: string;
  language: string;
}

/** `kernel`: null lets JupyterLab ask for one. */
export function clusterNotebook(kernel: IKernelSpec | null) {
  return {
    nbformat: 4,
    nbformat_minor: 5,
    metadata: kernel ? { kernelspec: kernel } : {},
    cells: Object.entries(CELLS).map(([id, source]) => ({
      id,
      cell_type: 'code',
      source,
      metadata: {},
      execution_count: null,
      outputs: []
    }))
  };
}
