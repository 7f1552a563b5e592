"""The panel's style sheet. Colours are JupyterLab's own variables, with a choice for pages that have none."""

STYLE = """<style>
.ppe-panel { --ppe-good: var(--jp-success-color1, #2e8b57); --ppe-bad: var(--jp-error-color1, #c0392b);
  --ppe-moving: var(--jp-warn-color1, #b9770e); --ppe-quiet: var(--jp-ui-font-color2, #616161);
  --ppe-line: var(--jp-border-color2, #8884); color: var(--jp-ui-font-color1, inherit);
  font-size: var(--jp-ui-font-size1, 13px); }
.ppe-panel .widget-html-content, .ppe-panel .jupyter-widgets.widget-html-content { line-height: 1.5; }
.ppe-panel .jupyter-widgets { min-width: 0; max-width: calc(100% - 4px); }
.ppe-panel .widget-html-content { min-width: 0; max-width: 100%; }
.ppe-panel .widget-box { overflow: visible; max-width: 100%; } /* tables scroll by themselves */
.ppe-panel .lm-TabBar-content { flex-wrap: wrap; } .ppe-panel .lm-TabBar-tab { flex: 0 1 auto !important; }
.ppe-panel .widget-tab-contents { padding: min(15px, 2%) !important; overflow: visible; }
.ppe-panel .widget-inline-hbox { flex-wrap: nowrap; }
.ppe-panel .widget-checkbox, .ppe-panel .widget-checkbox .widget-label-basic { height: auto; white-space: normal; }
.ppe-panel .widget-checkbox .widget-label-basic input { align-self: center; }
.ppe-panel table { border-collapse: collapse; font-size: inherit; margin: 0; }
.ppe-panel th, .ppe-panel td { text-align: left; padding: 2px 14px 2px 0; vertical-align: top; border: 0;
  white-space: nowrap; }
.ppe-panel td.ppe-long { white-space: normal; overflow-wrap: anywhere; }
.ppe-panel thead th { font-weight: 600; color: var(--ppe-quiet); border-bottom: 1px solid var(--ppe-line); }
.ppe-panel .ppe-number { text-align: right; font-variant-numeric: tabular-nums; }
.ppe-panel caption, .ppe-panel .ppe-caption { text-align: left; font-weight: 600; padding: 6px 0 2px; color: inherit; }
.ppe-panel .ppe-good { color: var(--ppe-good); } .ppe-panel .ppe-bad { color: var(--ppe-bad); }
.ppe-panel .ppe-moving { color: var(--ppe-moving); }
.ppe-panel .ppe-calm { color: var(--ppe-quiet); }
.ppe-panel .ppe-glance { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 0; }
.ppe-panel .ppe-glance dt, .ppe-panel .ppe-glance dd { float: none; display: block; width: auto; padding: 0; }
.ppe-panel .ppe-glance div { min-width: 7em; } .ppe-panel .ppe-glance dt { color: var(--ppe-quiet); font-size: 0.9em;
  font-weight: 400; } .ppe-panel .ppe-glance dd { margin: 0; font-weight: 600; }
.ppe-panel .widget-vbox > .jupyter-button { align-self: flex-start; }
.ppe-panel .ppe-wide { overflow-x: auto; max-width: 100%; }
.ppe-panel .ppe-fact-line { display: flex; flex-wrap: wrap; gap: 0 18px; }
.ppe-panel .ppe-problem { border-left: 3px solid var(--ppe-bad); padding: 2px 8px; }
.ppe-panel .ppe-problem pre { white-space: pre-wrap; margin: 4px 0; font-size: 0.95em; }
.ppe-panel progress { width: 12em; vertical-align: middle; accent-color: var(--jp-brand-color1, #1976d2); }
.ppe-panel code { font-family: var(--jp-code-font-family, monospace); font-size: 0.95em; }
.ppe-panel { position: relative; }
.ppe-panel .ppe-seen { position: absolute; inset: 0; z-index: -1; pointer-events: none; }
.ppe-panel .ppe-tools { display: flex; flex-wrap: wrap; gap: 4px 18px; align-items: center; padding: 4px 0; }
.ppe-panel .ppe-tools input[type=number] { width: 5em; }
.ppe-panel .ppe-tools input, .ppe-panel .ppe-tools label { font: inherit; color: inherit; }
.ppe-panel .ppe-tools input { background: var(--jp-layout-color1, Field); border: 1px solid var(--ppe-line);
  padding: 3px; }
.ppe-panel .ppe-types { max-height: 17em; overflow: auto; border: 1px solid var(--ppe-line); width: fit-content;
  max-width: 100%; }
.ppe-panel .ppe-types thead th { position: sticky; top: 0; background: var(--jp-layout-color1, Canvas); z-index: 1; }
.ppe-panel .ppe-types thead button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0;
  padding: 0; cursor: pointer; white-space: nowrap; }
.ppe-panel .ppe-types thead button::after { content: " " attr(data-mark); }
.ppe-panel .ppe-types tbody th { font-weight: 400; } .ppe-panel .ppe-types input[type=radio] { margin: 0 6px 0 4px;
  vertical-align: -2px; }
.ppe-panel .ppe-types tbody tr { cursor: pointer; }
.ppe-panel .ppe-types tbody tr:hover { background: var(--jp-layout-color2, #eee8); }
.ppe-panel .ppe-types tbody tr:has(:checked) { background: var(--jp-brand-color3, #bbdefb); font-weight: 600; }
.ppe-panel .ppe-row { border-top: 1px solid var(--ppe-line); padding: 3px 0; flex-wrap: wrap; }
.ppe-panel .ppe-open { border-left: 3px solid var(--jp-brand-color1, #1976d2); padding: 4px 0 8px 12px;
  margin: 0; box-sizing: border-box; width: 100%; }
.ppe-panel .ppe-opener button, .ppe-panel button.ppe-opener { text-align: left; font-weight: 600; background: none; }
.ppe-panel .ppe-server-action, .ppe-panel .ppe-link, .ppe-panel .jp-mod-accept { font: inherit;
  letter-spacing: normal; height: auto; min-height: 0; line-height: normal; padding: 4px 10px; margin: 2px; border: 0;
  border-radius: 2px; cursor: pointer; white-space: nowrap; color: var(--jp-ui-font-color1, inherit);
  background: var(--jp-layout-color2, #eee); text-decoration: none; }
.ppe-panel .ppe-server-action:hover, .ppe-panel .ppe-link:hover { background: var(--jp-layout-color3, #ddd); }
.ppe-panel :focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2) !important; outline-offset: 1px; }
.ppe-panel .ppe-end { color: var(--ppe-bad); }
</style>"""
