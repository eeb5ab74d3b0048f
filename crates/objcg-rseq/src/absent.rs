//! Where there are no restartable sequences: every section gives up, and the thread's word is a pthread-less none.
