//! What the command line says against learning the rows by heart.

/// Regularization, of the network and of its training.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Regularization")]
pub struct RegularizationArgs {
    /// Share of each hidden layer's outputs that a training step sets to 0.
    #[arg(long, value_name = "SHARE")]
    pub dropout: Option<f64>,

    /// Share of the inputs that a training step sets to 0.
    #[arg(long, value_name = "SHARE")]
    pub input_dropout: Option<f64>,

    /// Largest norm of a hidden unit's incoming weights.
    #[arg(long, value_name = "BOUND")]
    pub max_norm: Option<f64>,

    /// λ of a penalty λ·|W|.
    #[arg(long, value_name = "LAMBDA")]
    pub l1: Option<f64>,

    /// λ of a penalty λ/2·‖W‖².
    #[arg(long, value_name = "LAMBDA")]
    pub l2: Option<f64>,

    /// Largest norm of the whole gradient.
    #[arg(long, value_name = "BOUND")]
    pub max_gradient_norm: Option<f64>,

    /// Largest value of each element of the gradient.
    #[arg(long, value_name = "BOUND")]
    pub max_gradient_value: Option<f64>,
}
