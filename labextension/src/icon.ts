import { LabIcon } from '@jupyterlab/ui-components';

/** A master over three workers; jp-icon3 makes it follow the theme. */
const SVG = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g fill="#616161" class="jp-icon3">
    <path d="M11.25 9h1.5v2.25h7.5V15h-1.5v-2.25h-6V15h-1.5v-2.25h-6V15h-1.5v-3.75h7.5z"/>
    <rect x="8" y="2" width="8" height="7" rx="1.5"/>
    <rect x="1.5" y="15" width="6" height="6" rx="1.5"/>
    <rect x="9" y="15" width="6" height="6" rx="1.5"/>
    <rect x="16.5" y="15" width="6" height="6" rx="1.5"/>
  </g>
</svg>`;

export const clusterIcon = new LabIcon({ name: 'ppe-jupyter:cluster', svgstr: SVG });
