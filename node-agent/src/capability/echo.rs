//! `echo`: gives its input back.

use std::sync::LazyLock;

use super::{Call, Capability, Running, terms::Terms};

static TERMS: LazyLock<Terms> = LazyLock::new(|| Terms::built_in(None, None));

#[derive(Debug)]
pub(super) struct Echo;

impl Capability for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn terms(&self) -> &Terms {
        &TERMS
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
