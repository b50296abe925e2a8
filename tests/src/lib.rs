pub mod anthropic;
pub mod claude;
