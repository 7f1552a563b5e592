import highlight from './highlight';
import launcher from './launcher';

export default [highlight, launcher];
