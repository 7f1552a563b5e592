/**
 * The cluster's name at the prompt of remote cells.
 *
 * It is the cell's own `--cluster`; else the one that a cell of this notebook has connected to since its kernel was
 * started, as its output says; else the sole running one, which remote cells take. A name that is not certain is not
 * shown: after a reload of the page with several clusters that is so until a cell connects.
 */
import { type INotebookTracker, NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';
import type { ICodeCellModel } from '@jupyterlab/cells';

import type { Watch } from './watch';
import { running } from './words';

const REMOTE = /^\s*%{1,2}remote_\w+/;
const NAMED = /--cluster[ =]\s*["']?([\w@.-]+)/;
const CONNECTS = /^\s*%ppe[_ ](connect|launch|start)\b/m;
const DISCONNECTS = /^\s*%ppe[_ ]disconnect\b/m;
const CONNECTED = /\bconnected to ([\w@.-]+)/g;
const SETTLE_MS = 200;

export function showNames(notebooks: INotebookTracker, watch: Watch): void {
  const connected = new WeakMap<NotebookPanel, string>();
  const attend = (panel: NotebookPanel) => {
    let timer = 0;
    const soon = () => {
      window.clearTimeout(timer);
      timer = window.setTimeout(() => show(panel, connected.get(panel) ?? sole(watch)), SETTLE_MS);
    };
    const forget = () => {
      connected.delete(panel);
      soon();
    };
    panel.context.ready.then(() => panel.content.modelContentChanged.connect(soon), console.warn);
    panel.sessionContext.kernelChanged.connect(forget);
    panel.sessionContext.statusChanged.connect((_, status) => status.endsWith('restarting') && forget());
    watch.changed.connect(soon);
    panel.disposed.connect(() => watch.changed.disconnect(soon));
    soon();
  };
  notebooks.forEach(attend);
  notebooks.widgetAdded.connect((_, panel) => attend(panel));
  NotebookActions.executed.connect((_, { notebook, cell }) => {
    const panel = notebooks.find(each => each.content === notebook);
    const source = cell.model.sharedModel.getSource();
    if (!panel || cell.model.type !== 'code') {
      return;
    }
    const name = CONNECTS.test(source) && lastConnected(cell.model as ICodeCellModel);
    if (name) {
      connected.set(panel, name);
    } else if (DISCONNECTS.test(source)) {
      connected.delete(panel);
    }
    show(panel, connected.get(panel) ?? sole(watch));
  });
}

function sole(watch: Watch): string | undefined {
  const [first, ...others] = running(watch.overview);
  return others.length ? undefined : first?.name;
}

function lastConnected({ outputs }: ICodeCellModel): string | undefined {
  const texts = outputs.toJSON().map(output => String(output.text ?? ''));
  return [...texts.join('\n').matchAll(CONNECTED)].pop()?.[1];
}

/** The name is a style, so that it outlives the prompt's text, which each run sets anew. */
function show(panel: NotebookPanel, otherwise: string | undefined): void {
  for (const cell of panel.isDisposed ? [] : panel.content.widgets) {
    const line =
      cell.model.type === 'code'
        ? (cell.model.sharedModel.getSource().trimStart().split('\n', 1)[0] ?? '')
        : '';
    const name = REMOTE.test(line) ? (NAMED.exec(line)?.[1] ?? otherwise) : undefined;
    cell.node.classList.toggle('jp-ppe-remote', !!name);
    if (name) {
      cell.node.style.setProperty('--ppe-cluster', JSON.stringify(name));
    }
  }
}
