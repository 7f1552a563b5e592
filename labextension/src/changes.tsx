/**
 * Changes: what a click does to a cluster. Each goes plan, review, operation; nothing is done without a yes.
 *
 * The server plans and does the work; it goes on when this page is closed.
 */
import { Dialog, InputDialog, Notification, showDialog } from '@jupyterlab/apputils';
import * as React from 'react';

import { type ICluster, type IPlan, type ISpec, problemOf } from './api';
import { Limits } from './limits';
import { Copy, Grade, Rows, Trouble } from './parts';
import type { Watch } from './watch';
import { perHour } from './words';

const LABELS: Readonly<Record<string, string>> = {
  launch: 'Launch',
  terminate: 'Terminate',
  park: 'Park',
  start: 'Start',
  reboot: 'Reboot',
  resize: 'Resize',
  retry: 'Mend',
  limit: 'Set limits'
};
const WAYS: Readonly<Record<string, string>> = {
  'Wait: they may come back': 'wait',
  'Replace them by new ones': 'replace',
  'Go on without them': 'drop'
};

export function Review({ plan }: { plan: IPlan }): React.JSX.Element {
  return (
    <div className="jp-ppe-review">
      <Rows rows={plan.rows} />
      {plan.problems.length > 0 && (
        <ul className="jp-ppe-problems" aria-label="Problems">
          {plan.problems.map(({ grade, text }, index) => (
            <li key={index}>
              <Grade grade={grade} /> {text}
            </li>
          ))}
        </ul>
      )}
      {plan.losses.length > 0 && (
        <section className="jp-ppe-losses">
          <h3>These exist nowhere else, and would be lost</h3>
          <Rows rows={plan.losses} />
        </section>
      )}
      {plan.destroys && <p className="jp-ppe-destroys">{destroyed(plan)}</p>}
      {plan.magic && <Copy text={plan.magic} label="Copy the magic that does the same" />}
    </div>
  );
}

function destroyed(plan: IPlan): string {
  return plan.verb === 'terminate'
    ? `Machines and disks of ${plan.cluster} are deleted. This cannot be undone.`
    : 'Some machines and their disks are deleted. This cannot be undone.';
}

export class Changes {
  constructor(private readonly watch: Watch) {}

  /** Ask for what the verb needs, show what it would do, do it. Returns whether it has begun. */
  async change(verb: string, cluster: ICluster): Promise<boolean> {
    const options = await this.options(verb, cluster);
    return options !== null && this.planned(() => this.watch.api.planChange(verb, cluster.name, options));
  }

  /** The same for a click outside, of which only the cluster's name is known. */
  terminate(cluster: string): Promise<boolean> {
    return this.planned(() => this.watch.api.planChange('terminate', cluster));
  }

  launch(plan: IPlan): Promise<boolean> {
    return this.reviewed(plan);
  }

  /** Have a launch undo itself, after a question. */
  async stop(operation: string, cluster: string): Promise<void> {
    const body = `What was launched of ${cluster} is ended again.`;
    if (await this.agreed(`Stop launching ${cluster}?`, body, 'Stop launching')) {
      await this.attempted(() => this.watch.api.stop(operation));
    }
  }

  /** Interrupt or restart R, after a question. It works while a cell runs: it goes past the kernel. */
  async session(action: 'interrupt' | 'restart', cluster: string): Promise<void> {
    const [title, body] =
      action === 'interrupt'
        ? [`Interrupt R on ${cluster}?`, 'What it evaluates ends, whoever started it. Its variables stay.']
        : [`Restart R on ${cluster}?`, 'What it evaluates ends, and its variables are lost.'];
    const known = this.watch.overview?.clusters.find(each => each.name === cluster);
    const foreign = known && !known.mine ? known.owner : '';
    if (await this.agreed(title, body, action === 'interrupt' ? 'Interrupt' : 'Restart R', foreign)) {
      const done = await this.attempted(() => this.watch.api.session(action, cluster, foreign !== ''));
      if (done) {
        const said =
          action === 'interrupt' ? `R on ${cluster} was interrupted` : `R on ${cluster} starts anew`;
        Notification.info(said, { autoClose: 4000 });
      }
    }
  }

  private async options(verb: string, cluster: ICluster): Promise<ISpec | null> {
    if (verb === 'resize') {
      const { value, button } = await InputDialog.getNumber({
        title: `Resize ${cluster.name}`,
        label: 'Nodes, the master included',
        value: cluster.nodes_wanted,
        okLabel: 'Review'
      });
      return button.accept && value !== null ? { nodes: value } : null;
    }
    if (verb === 'retry') {
      const title = `What to do with ${cluster.name}?`;
      const { value } = await InputDialog.getItem({
        title,
        label: 'Nodes that are lost',
        items: Object.keys(WAYS),
        okLabel: 'Review'
      });
      return value ? { choice: WAYS[value] } : null;
    }
    if (verb === 'limit') {
      const { value, button } = await showDialog({
        title: `Limits of ${cluster.name}`,
        body: new Limits(cluster),
        buttons: [Dialog.cancelButton(), Dialog.okButton({ label: 'Review' })]
      });
      return button.accept && value && Object.keys(value).length ? value : null;
    }
    return {};
  }

  private async planned(plan: () => Promise<IPlan>): Promise<boolean> {
    const made = await this.attempted(plan);
    return made !== null && this.reviewed(made);
  }

  private async reviewed(plan: IPlan): Promise<boolean> {
    const label = `${LABELS[plan.verb] ?? plan.verb} ${plan.cluster}`;
    const accept = plan.destroys ? Dialog.warnButton : Dialog.okButton;
    const price = plan.costs ? ` (${perHour(plan.usd_per_hour)})` : '';
    const { button } = await showDialog({
      title: plan.ok ? `${label}?` : `${label}: not possible like this`,
      body: <Review plan={plan} />,
      buttons: plan.ok
        ? [Dialog.cancelButton(), accept({ label: label + price })]
        : [Dialog.cancelButton({ label: 'Close' })],
      // Enter alone must not spend or destroy.
      defaultButton: 0
    });
    return button.accept && (await this.attempted(() => this.watch.api.start(plan))) !== null;
  }

  /** Whether the user says yes; `owner` is whose the cluster is, if it is somebody else's. */
  private async agreed(title: string, text: string, label: string, owner = ''): Promise<boolean> {
    const buttons = [Dialog.cancelButton(), Dialog.warnButton({ label })];
    const body = (
      <div>
        <p>{text}</p>
        {owner && (
          <p>
            <Grade grade="warning" /> It is not yours: {owner} launched it.
          </p>
        )}
      </div>
    );
    return (await showDialog({ title, body, buttons, defaultButton: 0 })).button.accept;
  }

  /** The answer, or null after its failure was shown. */
  private async attempted<T>(request: () => Promise<T>): Promise<T | null> {
    try {
      return await request();
    } catch (error) {
      const problem = problemOf(error);
      const body = <Trouble problem={problem} />;
      await showDialog({
        title: 'That was not done',
        body,
        buttons: [Dialog.cancelButton({ label: 'Close' })]
      });
      return null;
    } finally {
      this.watch.again();
    }
  }
}
