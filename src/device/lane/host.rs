//! A device in host memory, which does what the kernels do, and only when its results are wanted: so the
//! cutting is tested on every machine.

use crate::kernel::otp;

use super::*;

#[derive(Default)]
struct HostLane {
    memory: Vec<u8>,
    running: Option<Launch>,
}

impl Lane for HostLane {
    fn start<'a>(
        &mut self,
        launch: &Launch,
        inputs: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Result<(), Error> {
        let before = self.running.replace(launch.clone());
        assert!(before.is_none(), "a lane is emptied before it is filled again");
        self.memory = vec![0xee; launch.reach()];
        for (at, input) in inputs {
            self.memory[..launch.up][at..at + input.len()].copy_from_slice(input);
        }
        Ok(())
    }

    fn finish<'a>(
        &mut self,
        outputs: impl Iterator<Item = (usize, &'a mut [u8])>,
    ) -> Result<(), Error> {
        let launch = self.running.take().expect("a lane is filled before");
        let stride = launch.threads as usize * VECTOR_BYTES;
        let (inputs, rows) = match launch.function {
            Function::Xor => (2, 0b11),
            Function::Share => (COLUMNS, launch.numbers[2]),
            _ => panic!("kernels over jobs run in simulations of a device"),
        };
        let outputs: Vec<_> = outputs.collect();
        // Columns may be longer than what is in them by less than a vector.
        let bytes = outputs.iter().map(|(_, output)| output.len()).sum::<usize>();
        let columns = launch.down.len() / stride;
        assert!(launch.down.start == 0 && bytes.div_ceil(columns).next_multiple_of(16) == stride);
        for (at, output) in outputs {
            let (number, at) = (at / stride, at % stride);
            assert!(number < columns && at + output.len() <= stride);
            output.fill(0);
            for input in (0..inputs).filter(|i| rows >> (COLUMNS * number + i) & 1 == 1) {
                otp::xor(output, &self.memory[input * stride + at..]);
            }
        }
        Ok(())
    }
}

/// A queue with pieces of `column_bytes`.
pub fn queue(column_bytes: usize) -> Box<dyn Queue> {
    Box::new(Lanes::new([HostLane::default(), HostLane::default()], column_bytes, Ability::WGSL))
}
