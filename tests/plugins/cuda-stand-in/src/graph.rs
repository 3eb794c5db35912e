//! Graphs: what a stream recorded, queued again as a whole.

use std::ffi::c_ulonglong;
use std::sync::Arc;

use crate::codes::INVALID_HANDLE;
use crate::state::{State, known};
use crate::stream;

driver! {
    fn cuGraphInstantiateWithFlags(executable: *mut usize, graph: usize, _flags: c_ulonglong) {
        let mut state = State::enter()?;
        let graph = Arc::clone(known(&state.graphs, graph)?);
        let handle = state.handle();
        state.executables.insert(handle, graph);
        executable.write(handle);
        Ok(())
    }

    fn cuGraphGetNodes(graph: usize, nodes: *mut usize, count: *mut usize) {
        let state = State::enter()?;
        let graph = known(&state.graphs, graph)?;
        if !nodes.is_null() {
            for i in 0..graph.len().min(count.read()) {
                nodes.add(i).write(i + 1);
            }
        }
        count.write(graph.len());
        Ok(())
    }

    fn cuGraphUpload(executable: usize, stream: usize) {
        let mut state = State::enter()?;
        known(&state.executables, executable)?;
        state.stream(stream)?;
        Ok(())
    }

    fn cuGraphLaunch(executable: usize, stream: usize) {
        let mut state = State::enter()?;
        let graph = Arc::clone(known(&state.executables, executable)?);
        for operation in graph.iter() {
            stream::push(&mut state, stream, operation.clone(), Vec::new())?;
        }
        Ok(())
    }

    fn cuGraphExecDestroy(executable: usize) {
        State::enter()?.executables.remove(&executable).map(|_| ()).ok_or(INVALID_HANDLE)
    }

    fn cuGraphDestroy(graph: usize) {
        State::enter()?.graphs.remove(&graph).map(|_| ()).ok_or(INVALID_HANDLE)
    }
}
