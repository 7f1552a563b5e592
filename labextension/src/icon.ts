import { LabIcon } from '@jupyterlab/ui-components';

/** A master over three workers; jp-icon3 follows the theme. */
const SVG = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <path fill="none" stroke="#616161" stroke-width="1.5" class="jp-icon-stroke jp-icon3-stroke" d="M12 9v6M4.5 15v-3h15v3"/>
  <g fill="#616161" class="jp-icon3">
    <rect x="8" y="2" width="8" height="7" rx="1.5"/>
    <rect x="1.5" y="15" width="6" height="6" rx="1.5"/>
    <rect x="9" y="15" width="6" height="6" rx="1.5"/>
    <rect x="16.5" y="15" width="6" height="6" rx="1.5"/>
  </g>
</svg>`;

export const clusterIcon = new LabIcon({ name: 'ppe-jupyter:cluster', svgstr: SVG });
