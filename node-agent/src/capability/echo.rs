//! `echo`: gives its input back.

use super::{Call, Capability, Running};

#[derive(Debug)]
pub(super) struct Echo;

impl Capability for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn run(&self, call: Call) -> Running {
        Box::pin(async move { Ok(call.input) })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::call, *};

    #[tokio::test]
    async fn what_goes_in_comes_out_to_the_byte() {
        let input = "{\"b\": 1.0, \"a\": [ ]}";
        assert_eq!(Echo.run(call(input)).await.unwrap(), input.as_bytes());
    }
}
