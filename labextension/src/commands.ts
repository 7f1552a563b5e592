/** The names of the commands; what they do is in `clusters.ts`. */
export const COMMANDS = {
  show: 'ppe-jupyter:show',
  launch: 'ppe-jupyter:launch',
  notebook: 'ppe-jupyter:new-cluster-notebook',
  connect: 'ppe-jupyter:connect',
  rstudio: 'ppe-jupyter:rstudio',
  terminate: 'ppe-jupyter:terminate'
} as const;

export const CATEGORY = 'Cluster';
