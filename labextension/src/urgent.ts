/**
 * Clicks on buttons of `%ppe_panel` that must work while a cell runs: messages of widgets wait behind that cell, so
 * these go to the Jupyter server.
 *
 * The buttons are `<button class="ppe-server-action" data-ppe-action="interrupt|restart|terminate" data-ppe-cluster=
 * "NAME">` in an HTML output; whatever has the class `ppe-server-absent` is hidden where this extension is at work.
 * The panel's terminals are opened too: the event `ppe-terminal` has the name of one in its `detail`.
 */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { Changes } from './changes';

const NAME = /^[a-z][a-z0-9-]{0,39}$/;

export function listen(changes: Changes, commands: JupyterFrontEnd['commands']): void {
  document.addEventListener('ppe-terminal', event => {
    event.preventDefault();
    void commands.execute('terminal:open', { name: (event as CustomEvent<string>).detail });
  });
  document.addEventListener('click', ({ target }) => {
    const button = target instanceof Element ? target.closest<HTMLElement>('.ppe-server-action') : null;
    const { ppeAction: action, ppeCluster: cluster = '' } = button?.dataset ?? {};
    if (!NAME.test(cluster)) {
      return;
    }
    if (action === 'terminate') {
      void changes.terminate(cluster);
    } else if (action === 'interrupt' || action === 'restart') {
      void changes.session(action, cluster);
    }
  });
}
