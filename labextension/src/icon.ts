import { LabIcon } from '@jupyterlab/ui-components';

/** A master over three workers; jp-icon3 makes it follow the theme. */
const CLUSTER = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g fill="#616161" class="jp-icon3">
    <path d="M11.25 9h1.5v2.25h7.5V15h-1.5v-2.25h-6V15h-1.5v-2.25h-6V15h-1.5v-3.75h7.5z"/>
    <rect x="8" y="2" width="8" height="7" rx="1.5"/>
    <rect x="1.5" y="15" width="6" height="6" rx="1.5"/>
    <rect x="9" y="15" width="6" height="6" rx="1.5"/>
    <rect x="16.5" y="15" width="6" height="6" rx="1.5"/>
  </g>
</svg>`;

/** A window of panes: a prompt, and what was plotted. */
const SESSION = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g fill="#616161" class="jp-icon3">
    <path fill-rule="evenodd" d="M3.5 3h17A1.5 1.5 0 0 1 22 4.5v15a1.5 1.5 0 0 1-1.5 1.5h-17A1.5 1.5 0 0 1 2 19.5v-15A1.5 1.5 0 0 1 3.5 3zM4 5v14h8V5zm10 0v5h6V5zm0 7v7h6v-7z"/>
    <path d="M5 8.4 6.4 7l4 4-4 4L5 13.6 7.6 11zM14.9 16h1.1v2.2h-1.1zm1.6-2.8h1.1v5h-1.1zm1.6 1.5h1.1v3.5h-1.1z"/>
  </g>
</svg>`;

export const clusterIcon = new LabIcon({ name: 'ppe-jupyter:cluster', svgstr: CLUSTER });
export const sessionIcon = new LabIcon({ name: 'ppe-jupyter:session', svgstr: SESSION });
